"""A unified kernel image: kernel, initramfs and command line in one UEFI program.

UEFI firmware that boots over HTTP loads one file and passes nothing else on, so it needs such an image. The
program in front is systemd's stub, from the distribution. Secure Boot needs it signed: `boot.signing`.

Source: the UAPI group's specification of unified kernel images; Microsoft's PE format.
"""

import struct
from pathlib import Path

from boot import programs, signing
from boot.errors import BuildError

#: A section with data that is read and never written or executed.
_READ_ONLY = 0x4000_0040
_HEADER = struct.Struct("<8sIIIIIIHHI")


def stub(arch: str, *, refresh: bool = False) -> Path:
    """The program in front; fetched if it is not in the cache.

    Args:
        arch: `x86_64` or `arm64`.
        refresh: look for a newer one in the archive.
    """
    return programs.get("stub", arch, refresh=refresh).path


def build(
    program: Path,
    kernel: Path,
    initramfs: Path,
    cmdline: str,
    out: Path,
    signer: signing.Signer | None = None,
) -> None:
    """Write a unified kernel image.

    Args:
        program: from `stub`.
        kernel: with an EFI stub of its own, as distributions build it.
        initramfs: for the kernel.
        cmdline: kernel command line, with its console.
        out: the file to write.
        signer: who signs it for Secure Boot; not signed when None.

    Raises:
        BuildError: the program is not a PE program, or has no room for more sections; it cannot be signed.
    """
    sections = ((".cmdline", cmdline.encode()), (".linux", kernel), (".initrd", initramfs))
    data = {name: each if isinstance(each, bytes) else each.read_bytes() for name, each in sections}
    out.write_bytes(join(program.read_bytes(), data))
    if signer is not None:
        signing.sign(out, signer)


def join(program: bytes, sections: dict[str, bytes]) -> bytes:
    """Add sections to a PE program, behind those that it has.

    Args:
        program: the program.
        sections: name (8 bytes at most) to content.

    Raises:
        BuildError: it is not a PE program, or has no room for their headers.
    """
    image = bytearray(program)
    try:
        (start,) = struct.unpack_from("<I", image, 60)
        if image[:2] != b"MZ" or image[start : start + 4] != b"PE\0\0":
            raise BuildError("the stub is not a PE program")
        count, optional = struct.unpack_from("<H12xH", image, start + 6)
        aligned, packed = struct.unpack_from("<II", image, start + 24 + 32)
        (room,) = struct.unpack_from("<I", image, start + 24 + 60)
        table = start + 24 + optional
        taken = [_HEADER.unpack_from(image, table + number * _HEADER.size) for number in range(count)]
    except struct.error as error:
        raise BuildError(f"the stub is not a PE program: {error}") from error
    end = table + (count + len(sections)) * _HEADER.size
    # Between the headers and the first section is padding, which is not always zero.
    if end > min(room, *(offset for *_, offset, _, _, _, _, _ in taken)):
        raise BuildError(f"the stub has no room for {len(sections)} more sections")
    memory = max(address + size for _, size, address, *_ in taken)
    # Data after the last section, such as symbols, is not part of the program.
    del image[max(offset + size for _, _, _, size, offset, *_ in taken) :]
    for number, (name, content) in enumerate(sections.items(), start=count):
        image += bytes(-len(image) % packed)
        memory += -memory % aligned
        stored = len(content) + -len(content) % packed
        header = (name.encode(), len(content), memory, stored, len(image), 0, 0, 0, 0, _READ_ONLY)
        _HEADER.pack_into(image, table + number * _HEADER.size, *header)
        image += content.ljust(stored, b"\0")
        memory += len(content)
    struct.pack_into("<H", image, start + 6, count + len(sections))
    # Drop the symbols, the signature, and the checksum, which firmware does not check.
    struct.pack_into("<II", image, start + 12, 0, 0)
    struct.pack_into("<I", image, start + 24 + 56, memory + -memory % aligned)
    struct.pack_into("<I", image, start + 24 + 64, 0)
    return bytes(image)
