"""Joining a program, a kernel and what it needs into one."""

import struct
from pathlib import Path

import pytest

from boot import uki
from boot.errors import BuildError


def program(*, headers: int = 1024, behind: bytes = b"symbols") -> bytes:
    """A PE program with one section."""
    image = bytearray(headers)
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 60, 128)
    struct.pack_into("<4sHHIIIHH", image, 128, b"PE\0\0", 0x8664, 1, 0, 7, 7, 240, 0x206)
    struct.pack_into("<H30xII16xII", image, 152, 0x20B, 4096, 512, 8192, headers)
    struct.pack_into("<I", image, 152 + 64, 99)
    text = (b".text", 10, 4096, 512, headers, 0, 0, 0, 0, 0x60000020)
    struct.pack_into("<8sIIIIIIHHI", image, 152 + 240, *text)
    return bytes(image) + b"code".ljust(512, b"\x90") + behind


def sections(image: bytes) -> dict[str, tuple[int, bytes]]:
    """Name to address and content."""
    (count,) = struct.unpack_from("<H", image, 134)
    found = {}
    for number in range(count):
        name, size, address, stored, offset = struct.unpack_from("<8sIIII", image, 392 + 40 * number)
        assert size <= stored
        assert offset % 512 == 0 == address % 4096
        found[name.rstrip(b"\0").decode()] = (address, image[offset : offset + size])
    return found


def test_everything_is_in_it() -> None:
    added = {".cmdline": b"quiet", ".linux": b"k" * 5000, ".initrd": b"i" * 512}
    image = uki.join(program(), added)
    found = sections(image)
    assert {name: content for name, (_, content) in found.items() if name != ".text"} == added
    assert [address for address, _ in found.values()] == [4096, 8192, 12_288, 20_480]
    assert struct.unpack_from("<I", image, 152 + 56) == (24_576,), "the size in memory"
    assert struct.unpack_from("<I", image, 152 + 64) == (0,), "the checksum is another one"
    assert b"symbols" not in image


def test_padding_may_be_anything() -> None:
    """That of the ARM64 stub is instructions that do nothing."""
    image = bytearray(program())
    image[432:1024] = b"\x1f\x20\x03\xd5" * 148
    assert list(sections(uki.join(bytes(image), {".linux": b"k"}))) == [".text", ".linux"]


def test_no_room() -> None:
    with pytest.raises(BuildError, match="no room for 3 more"):
        uki.join(program(headers=512), {".cmdline": b"", ".linux": b"", ".initrd": b""})


@pytest.mark.parametrize("stub", [b"", b"MZ", b"\x7fELF".ljust(500, b"\0"), program()[:140]])
def test_what_is_no_program(stub: bytes) -> None:
    with pytest.raises(BuildError, match="not a PE program"):
        uki.join(stub, {})


def test_files(tmp_path: Path) -> None:
    for name, content in (("stub", program()), ("kernel", b"K" * 3), ("initramfs", b"I" * 700)):
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "uki"
    uki.build(tmp_path / "stub", tmp_path / "kernel", tmp_path / "initramfs", "quiet", out)
    found = sections(out.read_bytes())
    assert [found[name][1] for name in (".cmdline", ".linux", ".initrd")] == [b"quiet", b"K" * 3, b"I" * 700]
