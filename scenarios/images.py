"""Images and releases for scenarios: built once a session, signed with the committed test keys."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from boot import images
from phase import cmdline
from phase.boot import initrd
from phase.release import keys as release_keys
from phase.release.repository import Repository
from phase.trust import Floor
from phase.trust import floor as floors

ARCHES = ("x86_64", "arm64")
CHANNEL = "stable"
CONSOLES = {"x86_64": "ttyS0", "arm64": "ttyAMA0"}
#: What the publisher signs for the system. The shell is for these scenarios to look inside.
SIGNED_CMDLINE = "quiet panic=-1 phase.console=shell"
KEYS = Path(__file__).parent.parent / "fixtures" / "keys"


def built(arches: Sequence[str]) -> list[images.System]:
    """The systems of these architectures; seeds, too, are in the cache afterwards.

    What is not there is built side by side: a seed is compressed by one thread.
    """
    with ThreadPoolExecutor() as pool:
        seeds = [pool.submit(images.seed, arch) for arch in arches]
        systems = [pool.submit(images.system, arch) for arch in arches]
        for seed in seeds:
            seed.result()
        return [system.result() for system in systems]


@dataclass(frozen=True)
class Release:
    """A published repository, and what boots from it."""

    directory: Path
    repository: Repository

    @classmethod
    def publish(cls, directory: Path, *, keys: str = "lab", arches: tuple[str, ...] = ARCHES) -> "Release":
        """Sign the current system images of each architecture into a new repository."""
        repository = Repository.create(directory, keys=release_keys.load(KEYS / keys))
        for arch, system in zip(arches, built(arches), strict=True):
            repository.add(CHANNEL, arch, system.artifacts(), cmdline=SIGNED_CMDLINE, release="1.0.0")
        repository.publish()
        return cls(directory, repository)

    def seed(
        self,
        arch: str,
        directory: Path,
        *,
        offline: bool = False,
        grace: Mapping[str, int] | None = None,
        floor: Floor | None = None,
        torrc: str = "",
    ) -> tuple[Path, Path]:
        """Kernel and initrd of a seed that trusts this repository's root.

        Args:
            arch: the machine's architecture.
            directory: where to write the initrd.
            offline: whether it may boot what it has kept.
            grace: mode to seconds for which it takes expired timestamps and snapshots.
            floor: versions below which it trusts nothing.
            torrc: configuration of its own Tor; it has none where this is left out.
        """
        built = images.seed(arch)
        whole = directory / f"seed-{arch}.initrd"
        root = (self.directory / "metadata" / "1.root.json").read_bytes()
        config = images.config(
            root, allow_shell=True, allow_offline=offline, grace=grace, floor=floor, torrc=torrc.encode()
        )
        tor = images.tor(arch).archive.read_bytes() if torrc else b""
        whole.write_bytes(built.initramfs.read_bytes() + tor + config)
        return built.kernel, whole

    def system(
        self, arch: str, directory: Path, running: str, *, serves: tuple[str, ...], flip: str = ""
    ) -> tuple[Path, Path, str]:
        """Kernel, initrd and command line of a system as the seed would hand over to it.

        Args:
            arch: the machine's architecture.
            directory: where to write the initrd.
            running: what the seed's own command line would have been.
            serves: architectures whose release it carries and serves; without any, it serves nothing.
            flip: SHA-256 of a blob to carry with one bit wrong.
        """
        metadata = self.repository.metadata([(CHANNEL, other) for other in serves]) if serves else {}
        own = self.repository.manifest(CHANNEL, arch)
        others = tuple(self.repository.manifest(CHANNEL, other) for other in serves if other != arch)
        plan = initrd.plan(own, metadata, also=others)
        whole = directory / f"system-{arch}.initrd"
        with whole.open("wb") as out:
            for offset, data in plan.pieces:
                os.pwrite(out.fileno(), data, offset)
            for slot in plan.slots:
                content = bytearray(self.blob(slot.sha256).read_bytes())
                if slot.sha256 == flip:
                    content[len(content) // 2] ^= 1
                os.pwrite(out.fileno(), content, slot.offset)
            os.pwrite(out.fileno(), self.blob(own.artifacts["initramfs"].sha256).read_bytes(), plan.tail)
        line = cmdline.compose(own.cmdline, running, rootfs=own.artifacts["rootfs"].sha256)
        return self.blob(own.artifacts["kernel"].sha256), whole, line

    @property
    def publisher(self) -> str:
        """What a machine's memory of this repository is called."""
        return floors.publisher((self.directory / "metadata" / "1.root.json").read_bytes())

    def blob(self, sha256: str) -> Path:
        """The file of one blob."""
        return self.directory / "blobs" / "sha256" / sha256
