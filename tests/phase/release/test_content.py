"""What `phase release add` makes of files: what was meant, the usual mistakes, and hostile ones."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import artifacts
from phase.boot import arm64, cpio, x86
from phase.boot.errors import HandoffError
from phase.release import content
from phase.release.errors import ContentError, RepositoryError

OTHER = {"x86_64": "arm64", "arm64": "x86_64"}
LZ4 = b"\x02\x21\x4c\x18"
ZSTD = b"\x28\xb5\x2f\xfd"


def pe(machine: int, sections: dict[str, bytes]) -> bytes:
    """An EFI program, as systemd's stub is one."""
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    headers = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(sections), 0, 0, 0, 0, 0)
    at, table, data = 0x400, b"", b""
    for name, words in sections.items():
        table += struct.pack("<8sIIII", name.encode(), len(words), 0, len(words), at) + bytes(16)
        data += words
        at += len(words)
    return (head + headers + table).ljust(0x400, b"\0") + data


def lkrn() -> bytes:
    """As iPXE's ipxe.lkrn: a header for boot loaders, of an old protocol."""
    head = bytearray(artifacts.kernel())
    head[0x206:0x208] = struct.pack("<H", 0x207)
    head[0x300:0x306] = b"1.21.1"
    return bytes(head)


def memtest() -> bytes:
    """As Memtest86+ 6: the header of a kernel of 64 bits, with nothing to unpack."""
    head = bytearray(artifacts.kernel())
    head[0x248:0x250] = bytes(8)
    head[0x300:0x311] = b"Memtest86+ v6.10\0"
    return bytes(head)


def old() -> bytes:
    """A kernel of 32 bits."""
    head = bytearray(artifacts.kernel())
    head[0x236:0x238] = bytes(2)
    return bytes(head)


def both(first: bytes, second: bytes) -> bytes:
    """Microcode in front of an initramfs."""
    return first + bytes(-len(first) % 512) + second


def microcode() -> bytes:
    out = io.BytesIO()
    cpio.write(out, [cpio.regular("kernel/x86/microcode/GenuineIntel.bin", b"\1" * 5000)])
    return out.getvalue()


def firmware(arch: str) -> bytes:
    """A card's firmware for one machine, then a program for another."""
    out = io.BytesIO()
    nodes = [
        cpio.regular("lib/firmware/card.elf", artifacts.program(OTHER[arch])),
        cpio.regular("bin/big", bytes(700_000), 0o755),
        cpio.regular("sbin/init", artifacts.program(arch), 0o755),
    ]
    cpio.write(out, nodes)
    return out.getvalue()


GOOD = [
    ("kernel", artifacts.kernel),
    ("initramfs", artifacts.initramfs),
    ("initramfs", firmware),
    ("initramfs", lambda arch: gzip.compress(artifacts.initramfs(arch))),
    ("initramfs", lambda arch: lzma.compress(firmware(arch))),
    ("initramfs", lambda arch: bz2.compress(firmware(arch))),
    ("initramfs", lambda arch: both(microcode(), gzip.compress(firmware(arch)))),
    ("initramfs", lambda arch: both(microcode(), artifacts.initramfs(arch))),
]


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
@pytest.mark.parametrize(("name", "make"), GOOD)
def test_what_was_meant_is_named_and_the_other_architecture_is_refused(
    tmp_path: Path, name: str, make: Callable[[str], bytes], arch: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(make(arch))
    assert content.check(name, path, arch).endswith(f"for {arch}")
    with pytest.raises(ContentError, match=f"for {arch}"):
        content.check(name, path, OTHER[arch])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rootfs", artifacts.squashfs()),
        ("dtb-virt", artifacts.device_tree()),
        ("initramfs", ZSTD + bytes(20)),
        ("initramfs", LZ4 + bytes(20)),
    ],
    ids=["squashfs", "device tree", "zstd", "lz4"],
)
def test_what_says_no_architecture_is_for_either(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    for arch in OTHER:
        assert content.check(name, tmp_path / "file", arch)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_ends_in_a_file_is_looked_at_to_its_end(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "initrd"
    whole = firmware("x86_64")
    path.write_bytes(pack(whole[: len(whole) // 2]))
    assert content.check("initramfs", path, "arm64")
    path.write_bytes(pack(whole))
    with pytest.raises(ContentError, match="for x86_64"):
        content.check("initramfs", path, "arm64")


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_our_own_unified_kernel_image(tmp_path: Path, arch: str) -> None:
    machine = {"x86_64": 0x8664, "arm64": 0xAA64}
    path = tmp_path / "boot.efi"
    path.write_bytes(pe(machine[arch], {".text": b"stub", ".linux": artifacts.kernel(arch)}))
    assert content.check("uki", path, arch) == f"a unified kernel image, for {arch}"
    with pytest.raises(ContentError, match=f"for {arch}, and the release is for"):
        content.check("uki", path, OTHER[arch])


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("kernel", b"a letter to the reader\n", "it is text: 'a letter to the reader'"),
        ("kernel", b"<!DOCTYPE html>\n<html>log in", "a page of the web"),
        ("kernel", b"\n\n  <HTML><body>log in", "a page of the web"),
        ("kernel", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("kernel", bytes(5000), "nothing but zeros"),
        ("kernel", b"\xff" * 5000, "of an unknown kind, it begins with ff ff"),
        ("kernel", artifacts.initramfs(), "it is a cpio archive. Are two files swapped"),
        ("initramfs", artifacts.kernel(), r"it is Linux 6.1.0 \(bzImage\)"),
        ("initramfs", artifacts.kernel("arm64"), r"it is a Linux kernel \(Image\)"),
        ("kernel", artifacts.squashfs(), "a squashfs file system. Are two files swapped"),
        ("rootfs", artifacts.initramfs(), "it is a cpio archive"),
        ("initramfs", artifacts.squashfs(), "it is a squashfs"),
        ("kernel", gzip.compress(artifacts.kernel("arm64")), "gzip-compressed. Unpack it"),
        ("kernel", gzip.compress(artifacts.kernel()), "gzip-compressed. Unpack it"),
        ("initramfs", gzip.compress(artifacts.kernel("arm64")), r"\(Image\), gzip-compressed"),
        ("initramfs", gzip.compress(b"notes " * 100), "text: .*, gzip-compressed"),
        ("initramfs", b"\x1f\x8b\x08" + bytes(50), "gzip-compressed, and damaged"),
        ("initramfs", b"\xfd7zXZ\0" + bytes(50), "xz-compressed, and damaged"),
        ("initramfs", b"\x04\x22\x4d\x18" + bytes(50), "use lz4 -l"),
        ("initramfs", b"070707" + bytes(100), "of the old format"),
        ("kernel", ZSTD + bytes(50), "zstd-compressed. Unpack it"),
        ("kernel", pe(0xAA64, {".text": b"x"})[:4] + b"zimg" + pe(0xAA64, {})[8:], "zboot.*Unpack it"),
        ("kernel", artifacts.program(), r"an ELF file \(vmlinux"),
        ("kernel", memtest(), r"not Linux \(Memtest86\+ v6.10\)"),
        ("kernel", lkrn(), r"not Linux \(1.21.1"),
        ("kernel", old(), "of 32 bits"),
        ("kernel", artifacts.kernel()[:2000], "the first 2000 bytes of 4992"),
        ("rootfs", artifacts.squashfs()[:2000], "the first 2000 bytes of 4096"),
        ("dtb-x", artifacts.device_tree(b"more")[:60], "the first 60 bytes of"),
        ("dtb-x", b"/dts-v1/; / { };", "it is text"),
        ("uki", pe(0x8664, {".text": b"x"}), "an EFI program"),
        ("kernel", b"!<arch>\ndebian-binary", "a Debian package"),
        ("rootfs", bytes(0x438) + b"\x53\xef" + bytes(100), "an ext4 file system"),
    ],
    # Without what pytest escapes in a name: mutmut asks for tests by their names.
    ids=lambda value: re.sub(r"[^\w ,.-]", "", value) if isinstance(value, str) else "file",
)
def test_what_is_in_the_files_is_looked_at(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(data)
    for arch in OTHER:
        with pytest.raises(ContentError, match=says):
            content.check(name, tmp_path / "file", arch)


BASES = [
    b"",
    b"MZ",
    artifacts.kernel(),
    artifacts.kernel("arm64"),
    artifacts.initramfs(),
    artifacts.squashfs(),
    artifacts.device_tree(),
    gzip.compress(artifacts.initramfs()),
    pe(0x8664, {".linux": b"x"}),
]


@settings(max_examples=200)
@given(
    data=st.binary(max_size=2000),
    at=st.sampled_from([0, 6, 0x38, 0x202, 0x300]),
    name=st.sampled_from(["kernel", "initramfs", "rootfs", "uki", "dtb-x"]),
    base=st.sampled_from(BASES),
)
def test_no_file_makes_it_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, name: str, base: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes((base[:at].ljust(at, b"\0") + data + base[at + len(data) :]) or b"\0")
    try:
        said = content.check(name, path, "x86_64")
    except ContentError as error:
        said = str(error)
    assert said.isprintable()


def test_a_kernel_that_is_taken_is_one_that_a_seed_starts() -> None:
    """The same fields are asked for; what a seed says of these kernels is about its memory, or nothing."""
    head = artifacts.kernel()[:4096]
    with pytest.raises(HandoffError, match="boot_params"):
        x86.image(head, (0, 5000), 0, "quiet", params=b"")
    with pytest.raises(HandoffError, match="names no memory"):
        arm64.image(
            artifacts.kernel("arm64")[:4096], (0, 5000), 0, "quiet", tree=b"", iomem="", chance=bytes(72)
        )
    for refused in (memtest, lkrn, old):
        assert content.look(io.BytesIO(refused())).kind == "other"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_archive_is_looked_at_in_bounds(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """A few kilobytes may unpack to terabytes: what comes after 64 MiB is not seen."""
    out = io.BytesIO()
    nodes = [cpio.regular("zeros", bytes(65 << 20)), cpio.regular("init", artifacts.program("arm64"), 0o755)]
    cpio.write(out, nodes)
    path = tmp_path / "initrd"
    path.write_bytes(pack(out.getvalue()))
    assert content.check("initramfs", path, "x86_64").startswith("a cpio archive")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_fifo_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kernel"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(RepositoryError, match="not a regular file"):
        content.check("kernel", path, "x86_64")


class Desk:
    """A repository, and `phase release` to run beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self("init repo --new-keys keys --plain")

    def __call__(self, words: str, *, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "phase", "release", *words.split()],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def add(self, words: str, *, code: int = 0) -> str:
        return self(f"add repo stable x86_64 --release 1 --keys keys {words}", code=code)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    (tmp_path / "initrd.img").write_bytes(artifacts.initramfs())
    return Desk(tmp_path)


def test_mistakes_are_refused_unless_told_to(desk: Desk) -> None:
    said = desk.add("--kernel initrd.img --initramfs vmlinuz", code=1)
    assert said.endswith("Are two files swapped? Give the right file, or --force to sign this one.\n")
    assert not list((desk.directory / "repo").glob("blobs/sha256/*"))
    assert "signed all the same" in desk.add("--kernel initrd.img --force")
    assert "kernel: Linux 6.1.0 (bzImage), for x86_64" in desk.add("--kernel vmlinuz --initramfs initrd.img")


@pytest.mark.timeout(30)
def test_a_fifo_among_them_holds_no_lock(desk: Desk) -> None:
    os.mkfifo(desk.directory / "pipe")
    assert "not a regular file" in desk.add("--kernel pipe", code=1)
    assert "not a regular file" in desk.add("--kernel pipe --force", code=1)


def test_every_file_is_taken_or_named(desk: Desk) -> None:
    given = desk.directory / "given"
    given.mkdir()
    for name in ("vmlinuz", "Board-Two.dtb", "dtb-one", "bzImage", "System.map", "my tree.dtb", "cmdline"):
        (given / name).write_bytes(artifacts.kernel() if name == "vmlinuz" else artifacts.device_tree())
    (given / "cmdline").write_text("quiet")
    (given / "overlays").mkdir()
    said = desk.add("--artifacts given")
    assert "left out of the release: System.map, bzImage, my tree.dtb, overlays\n" in said
    shown = desk("show repo")
    assert "dtb-board-two" in shown
    assert "dtb-one" in shown
    (given / "one.dtb").write_bytes(artifacts.device_tree())
    assert "two device trees dtb-one" in desk.add("--artifacts given", code=1)
