"""Joining a program, a kernel and what it needs into one."""

import struct
from pathlib import Path

import pytest

from boot import uki
from boot.errors import BuildError
from tests.boot.reads import program, sections


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
