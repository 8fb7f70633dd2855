"""Gaps in the second kernel's initrd, and in everything else that the running kernel is given for it."""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from phase.boot import arm64, initrd, kexec, x86
from phase.boot.fake import FakeMachine, StartedError
from phase.boot.kexec import Image
from phase.boot.seed import Seed
from phase.provider import store
from phase.release.keys import ReleaseKeys
from phase.release.manifest import Manifest
from phase.release.repository import Repository
from phase.trust import floor
from tests.phase.boot.conftest import Serve

MIB = 1 << 20
STALE = b"\xa5" * 4096
IOMEM = "40000000-4fffffff : System RAM\n"


def _x86_kernel() -> bytes:
    image = bytearray(os.urandom(2 * MIB + 12_345))
    image[0x1F1], image[0x201], image[0x202:0x206] = 15, 0x6C, b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<II", image, 0x22C, 0x7FFFFFFF, 2 * MIB)
    struct.pack_into("<H", image, 0x236, 0x7F)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<QI", image, 0x258, 16 * MIB, 20 * MIB)
    return bytes(image)


def _arm64_kernel() -> bytes:
    image = bytearray(os.urandom(2 * MIB + 12_345))
    image[0x38:0x3C] = b"ARM\x64"
    struct.pack_into("<QQ", image, 8, 0, 8 * MIB)
    return bytes(image)


KERNELS = {"x86_64": _x86_kernel, "arm64": _arm64_kernel}


def _tree() -> bytes:
    """A device tree with an empty root."""
    structure = struct.pack(">5I", 1, 0, 2, 9, 0)[:16]
    return struct.pack(">10I", 0xD00DFEED, 88, 56, 72, 40, 17, 16, 0, 0, 16) + bytes(16) + structure


def _image(machine: FakeMachine, kernel: bytes, place: tuple[int, int]) -> Image:
    size = os.fstat(machine.initrd).st_size
    if machine.arch == "x86_64":
        params = bytearray(4096)
        params[0x1E8] = 1
        struct.pack_into("<QQI", params, 0x2D0, MIB, 255 * MIB, 1)
        return x86.image(kernel[:4096], place, size, "quiet", params=bytes(params))
    return arm64.image(
        kernel[:4096], place, size, "quiet", tree=_tree(), iomem=IOMEM, chance=bytes(range(72))
    )


def _given(monkeypatch: pytest.MonkeyPatch, image: Image, file: int) -> list[bytes]:
    """What each segment's memory holds when the next kernel starts, as `kexec_load` is told of it."""
    found: list[bytes] = []

    def call(_numbers: object, _entry: int, count: int, entries: object, _flags: int) -> None:
        assert isinstance(entries, ctypes.Array)
        for entry in entries[:count]:
            assert entry.bufsz <= entry.memsz
            # The running kernel clears what is behind the bytes it is given.
            found.append(ctypes.string_at(entry.buf, entry.bufsz) + bytes(entry.memsz - entry.bufsz))

    monkeypatch.setattr(kexec, "_syscall", call)
    kexec.load(image, file)
    return found


class Prepared:
    """A machine of an architecture, a provider for it, and stale bytes wherever some could come from."""

    def __init__(self, arch: str, directory: Path) -> None:
        self.files = {
            "kernel": KERNELS[arch](),
            "initramfs": os.urandom(MIB + 77),
            "rootfs": os.urandom(3 * MIB + 5),
        }
        paths = {}
        for name, data in self.files.items():
            paths[name] = directory / name
            paths[name].write_bytes(data)
        repository = Repository.create(directory / "r", keys=ReleaseKeys.from_seed("ours"))
        repository.add("stable", arch, paths, cmdline="quiet", release="1.0")
        repository.publish()
        self.manifest: Manifest = repository.manifest("stable", arch)
        self._metadata = repository.metadata()
        self._timestamp = directory / "r/metadata/timestamp.json"
        self._rootfs = directory / "r/blobs/sha256" / self.manifest.artifacts["rootfs"].sha256
        root = (directory / "r/metadata/1.root.json").read_bytes()
        blobs = directory / "disk/blobs/sha256"
        blobs.mkdir(parents=True)
        for artifact in self.manifest.artifacts.values():
            (blobs / artifact.content).write_bytes(STALE * (artifact.length // len(STALE) + 9))
        metadata = directory / f"disk/metadata-{floor.publisher(root)}"
        metadata.mkdir()
        for name in repository.metadata():
            (metadata / name).write_bytes(STALE)
        self.machine = FakeMachine(
            arch, etc={"root.json": root, "build-time": b"0"}, disk=directory / "disk"
        )

    def stalls(self) -> None:
        """The provider lacks what is fetched last, and pads what nobody signs: all lies further behind."""
        self._rootfs.rename(self._rootfs.with_suffix(".away"))
        self._timestamp.write_bytes(self._metadata["timestamp.json"] + b" " * 300)

    def goes_on(self) -> None:
        """It does so no longer."""
        self._rootfs.with_suffix(".away").rename(self._rootfs)
        self._timestamp.write_bytes(self._metadata["timestamp.json"])

    def initrd(self) -> bytes:
        """What was signed, and the archive around it."""
        plan = initrd.plan(self.manifest, self._metadata)
        found = bytearray(plan.size)
        contents = {self.manifest.artifacts[name].sha256: data for name, data in self.files.items()}
        for offset, data in (
            *plan.pieces,
            *((slot.offset, contents[slot.sha256]) for slot in plan.slots),
            (plan.tail, self.files["initramfs"]),
        ):
            found[offset : offset + len(data)] = data
        return bytes(found)


@pytest.fixture(params=["x86_64", "arm64"])
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Prepared]:
    found = Prepared(request.param, tmp_path)
    yield found
    found.machine.close()


@pytest.mark.parametrize("attempts", [1, 2])
def test_every_byte_of_every_segment_is_verified_in_this_boot_or_ours(
    prepared: Prepared, serve: Serve, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """A disk that was prepared, a file that was used, an attempt that came as far as the last artifact."""
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    machine = prepared.machine
    machine.line = f"phase.provider={serve()} phase.mdns=off"
    seed = Seed(machine)
    os.pwrite(machine.initrd, STALE * 3000, 0)
    if attempts == 2:
        prepared.stalls()
        monkeypatch.setattr(machine, "sleep", lambda _: prepared.goes_on())
    with pytest.raises(StartedError):
        seed.run()
    expected = prepared.initrd()
    place = (expected.index(prepared.files["kernel"]), len(prepared.files["kernel"]))
    image = _image(machine, prepared.files["kernel"], place)
    kernel, ramdisk, told = _given(monkeypatch, image, machine.initrd)
    own = prepared.files["kernel"][16 * 512 if machine.arch == "x86_64" else 0 :]
    for given, right in ((kernel, own), (ramdisk, expected), (told, image.segments[2].content)):
        assert isinstance(right, bytes)
        assert given[: len(right)] == right
        assert not any(given[len(right) :])
        assert len(given) - len(right) < 4096
    assert STALE[:8] not in kernel + ramdisk + told
