"""A provider of a system, and of the seed that boots it."""

from pathlib import Path

from boot import uki
from boot.media.served import Seed
from lab.plugin import Record
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, CONSOLES, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop


class SeedProvider:
    """Files for a provider, and a port of a segment for it.

    Args:
        lab: makes the segment.
        record: of the test.
        release: with the system.
        arch: of both.
        work: for the files.

    Attributes:
        loop: with the segment, and the release that the provider serves.
        port: for its program.
        url: where the seed is.
        seed: its parts.
    """

    def __init__(self, lab: Lab, record: Record, release: Release, arch: str, work: Path) -> None:
        made = Repository.create(work / "repository", keys=release_keys.load(KEYS / "lab"))
        system = release.repository.manifest(CHANNEL, arch).artifacts
        files = {name: release.blob(artifact.sha256) for name, artifact in system.items()}
        made.add(CHANNEL, arch, files, cmdline=SIGNED_CMDLINE, release="1.0.0")
        made.publish()
        mine = Release(work / "repository", made)
        kernel, initramfs = mine.seed(arch, work)
        line = f"console={CONSOLES[arch]},115200 quiet panic=-1 phase.channel={CHANNEL} phase.job=hello"
        uki.build(uki.stub(arch), kernel, initramfs, line, work / "uki")
        self.seed = Seed(kernel.read_bytes(), initramfs.read_bytes(), (work / "uki").read_bytes(), line)
        seed = {"kernel": kernel, "initramfs": initramfs, "uki": work / "uki"}
        made.add("seed", arch, seed, cmdline=line, release="1.0.0")
        made.publish()
        self.loop = Loop(lab, record, mine, arch, work)
        self.port = lab.host_port("provider", self.loop.lan)
        self.url = f"http://{self.port.address.ip}:{PORT}/seed/{arch}"
