"""Checks the kind of a file before it is signed, by its first bytes, to find mistakes.

A seed starts any file that is signed. It would find out too late that the file is compressed, a web page, or
for another architecture. Trust does not depend on this check, and the publisher may overrule it.

Sources: Linux Documentation, arch/x86/boot.rst, arch/arm64/booting.rst, driver-api/early-userspace; the PE
format; squashfs 4.0; Devicetree Specification 0.4, chapter 5.
"""

import struct
from typing import BinaryIO, NamedTuple, Protocol

from phase.errors import printable, unreadable
from phase.release import blobs
from phase.release.archive import archived_machine, compression, unpacked
from phase.release.errors import ContentError, RepositoryError

#: Bytes of compressed content that are read.
_INNER = 4096
_MAX_SECTIONS = 96
#: The length of compressed content is not known.
_ANY_LENGTH = 1 << 62
_MACHINES = {
    0x8664: "x86_64", 0xAA64: "arm64", 0x14C: "i386", 0x1C2: "arm", 0x1C0: "arm",
    0x5064: "riscv64", 0x6264: "loongarch64",
}  # fmt: skip
_ELF_MACHINES = {62: "x86_64", 183: "arm64", 3: "i386", 40: "arm", 243: "riscv64", 258: "loongarch64"}
#: Machines that a release can be for, as ELF numbers them.
_OURS = (62, 183)
#: Marks of files: offset, bytes, kind, the same for people.
_MAGIC = (
    (0, b"070701", "cpio", "a cpio archive"),
    (0, b"070702", "cpio", "a cpio archive"),
    (0, b"070707", "other", "a cpio archive of the old format, which kernels do not unpack"),
    (0, b"\x28\xb5\x2f\xfd", "cpio", "zstd-compressed"),
    (0, b"\x02\x21\x4c\x18", "cpio", "lz4-compressed"),
    (0, b"\x89LZO", "cpio", "lzo-compressed"),
    (0, b"\x04\x22\x4d\x18", "other", "lz4-compressed as frames, which kernels do not unpack (use lz4 -l)"),
    (0, b"hsqs", "squashfs", "a squashfs file system"),
    (0, b"\xd0\x0d\xfe\xed", "fdt", "a device tree"),
    (0, b"\x27\x05\x19\x56", "other", "a U-Boot image (uImage)"),
    (0, b"ANDROID!", "other", "an Android boot image"),
    (0, b"!<arch>\n", "other", "a Debian package or a static library"),
    (0, b"PK\x03\x04", "other", "a zip archive"),
    (0x101, b"ustar", "other", "a tar archive"),
    (0x24, b"\x18\x28\x6f\x01", "other", "an ARM zImage, of 32 bits"),
    (0x438, b"\x53\xef", "other", "an ext4 file system"),
    (0x400, b"\xe2\xe1\xf5\xe0", "other", "an EROFS file system"),
    (0x8001, b"CD001", "other", "an ISO 9660 image"),
)


class Found(NamedTuple):
    """The kind of a file.

    Attributes:
        kind: `bzImage`, `Image`, `packed` (a compressed kernel), `uki`, `cpio` (an archive, or compressed in
            a way that is not undone here), `squashfs`, `fdt`, `other`.
        text: the same for people.
        arch: architecture, if the file shows it.
    """

    kind: str
    text: str
    arch: str = ""


def check(name: str, path: blobs.Source, arch: str) -> str:
    """Make sure that an artifact is of the kind that its name says.

    Args:
        name: of the artifact.
        path: its file.
        arch: of the release, `x86_64` or `arm64`.

    Returns:
        Its kind, for people.

    Raises:
        ContentError: it is something else, or for another architecture.
        RepositoryError: it cannot be read.
    """
    kind, wanted = _wanted(name, arch)
    try:
        with blobs.open_source(path) as file:
            found = look(file)
            if kind == found.kind == "cpio":
                found = found._replace(arch=_ELF_MACHINES.get(archived_machine(file, _OURS), ""))
    except OSError as error:
        raise RepositoryError(unreadable(path, error)) from error
    if kind and found.kind != kind:
        raise ContentError(f"{path} is not {wanted}: it is {found.text}", hint=_hint(found, kind))
    if found.arch and found.arch != arch:
        raise ContentError(
            f"{path} is for {found.arch}, and the release is for {arch}: it is {found.text}", hint=_FORCE
        )
    return f"{found.text}, for {found.arch}" if found.arch else found.text


_FORCE = "Give the right file, or --force to sign this one."


def _wanted(name: str, arch: str) -> tuple[str, str]:
    """The kinds that an artifact may be, and the same for people; empty if it may be any file."""
    if name == "kernel":
        return {
            "x86_64": ("bzImage", "a Linux kernel for x86_64 (bzImage)"),
            "arm64": ("Image", "a Linux kernel for arm64 (Image)"),
        }[arch]
    if name.startswith("dtb-"):
        return ("fdt", "a device tree")
    return {
        "initramfs": ("cpio", "an initramfs (a cpio archive, may be compressed)"),
        "rootfs": ("squashfs", "a squashfs file system"),
        "uki": ("uki", "a unified kernel image"),
    }.get(name, ("", ""))


def _hint(found: Found, kind: str) -> str:
    kernels = ("bzImage", "Image")
    if kind in kernels and found.kind in kernels:
        return f"It is for {found.arch}. {_FORCE}"
    if kind in kernels and (found.kind == "packed" or found.text.endswith("-compressed")):
        return f"Unpack it: a seed starts no compressed kernel. {_FORCE}"
    if found.kind in (*kernels, "cpio", "squashfs"):
        return f"Are two files swapped? {_FORCE}"
    return _FORCE


class _At(Protocol):
    def __call__(self, offset: int, size: int, /) -> bytes: ...


def look(file: BinaryIO) -> Found:
    """Find out the kind of a file.

    Raises:
        OSError: it cannot be read.
    """

    def at(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    file.seek(0, 2)
    return _look(at, file.tell())


def _look(at: _At, length: int, depth: int = 0) -> Found:
    head = at(0, 0x40)
    if at(0x202, 4) == b"HdrS":
        return _x86(at, length)
    if head[0x38:0x3C] == b"ARM\x64":
        big = len(head) > 24 and head[24] & 1
        text = "a big-endian arm64 kernel, which no seed starts" if big else "a Linux kernel (Image)"
        return _cut(Found("other" if big else "Image", text, "arm64"), _pe_end(at), length)
    if head[0x30:0x35] == b"RISCV":
        return Found("other", "a RISC-V kernel (Image)", "riscv64")
    if head.startswith(b"MZ"):
        return _pe(at, length)
    if head.startswith(b"\x7fELF"):
        machine = int.from_bytes(head[18:20], "big" if head[5:6] == b"\x02" else "little")
        return Found(
            "other", "an ELF file (vmlinux or a program)", _ELF_MACHINES.get(machine, "another machine")
        )
    if depth == 0 and (name := compression(head)):
        return _packed(name, unpacked(name, at(0, _INNER * 16), _INNER))
    for offset, magic, kind, text in _MAGIC:
        if at(offset, len(magic)) == magic:
            return _sized(Found(kind, text), at, length)
    return Found("other", _unknown(at(0, 512)))


def _x86(at: _At, length: int) -> Found:
    """A file with the header of an x86 kernel: Linux, or a program that looks like it to boot loaders."""
    header = at(0, 0x300).ljust(0x300, b"\0")
    version, flags = struct.unpack_from("<H", header, 0x206)[0], struct.unpack_from("<H", header, 0x236)[0]
    setup = ((header[0x1F1] or 4) + 1) * 512
    name_at = struct.unpack_from("<H", header, 0x20E)[0]
    words = at(0x200 + name_at, 80).split(b"\0")[0].decode("ascii", "replace").split() if name_at else []
    name = printable(words[0]) if words else "of unknown version"
    payload, size = struct.unpack_from("<II", header, 0x248) if version >= 0x208 else (0, 0)
    if not payload or not size:
        return Found(
            "other", f"a boot program that is not Linux ({' '.join(words[:2]) or 'nameless'})", "x86"
        )
    if not flags & 1:
        return Found("other", f"a Linux kernel {name} of 32 bits", "i386")
    if version < 0x20C:
        return Found(
            "other", f"a Linux kernel {name} of boot protocol {version >> 8}.{version & 255}", "x86_64"
        )
    end = setup + struct.unpack_from("<I", header, 0x1F4)[0] * 16
    return _cut(Found("bzImage", f"Linux {name} (bzImage)", "x86_64"), end, length)


def _pe(at: _At, length: int) -> Found:
    """An EFI program."""
    machine, names, end = _sections(at)
    arch = _MACHINES.get(machine, "another machine")
    if at(4, 4) == b"zimg":
        return Found("packed", "a compressed EFI kernel (zboot)", arch)
    if b".linux" in names:
        return _cut(Found("uki", "a unified kernel image", arch), end, length)
    return Found("other", "an EFI program", arch)


def _sections(at: _At) -> tuple[int, list[bytes], int]:
    """Machine, names of sections and end of the last one of a PE file."""
    start = int.from_bytes(at(0x3C, 4), "little")
    header = at(start, 24)
    if len(header) < 24 or header[:4] != b"PE\0\0":
        return 0, [], 0
    machine, count, optional = struct.unpack_from("<HH12xH", header, 4)
    names, end = [], 0
    for number in range(min(count, _MAX_SECTIONS)):
        section = at(start + 24 + optional + 40 * number, 40)
        if len(section) < 40:
            break
        size, begin = struct.unpack_from("<II", section, 16)
        names.append(section[:8].rstrip(b"\0"))
        end = max(end, begin + size)
    return machine, names, end


def _pe_end(at: _At) -> int:
    return _sections(at)[2] if at(0, 2) == b"MZ" else 0


def _cut(found: Found, end: int, length: int) -> Found:
    """The kind of a file that must have at least this length."""
    if length >= end:
        return found
    return Found("other", f"the first {length} bytes of {end} of {found.text}", found.arch)


def _sized(found: Found, at: _At, length: int) -> Found:
    """Refuse a file that is shorter than the length in its own header."""
    if found.kind == "fdt":
        return _cut(found, int.from_bytes(at(4, 4), "big"), length)
    if found.kind == "squashfs":
        if at(28, 2) != b"\x04\0":
            return Found("other", "a squashfs file system of an old version")
        return _cut(found, int.from_bytes(at(40, 8), "little"), length)
    return found


def _packed(name: str, inner: bytes) -> Found:
    if not inner:
        return Found("other", f"{name}-compressed, and damaged")
    inside = _look(lambda offset, size: inner[offset : offset + size], _ANY_LENGTH, depth=1)
    kind = {"cpio": "cpio", "bzImage": "packed", "Image": "packed"}.get(inside.kind, "other")
    return Found(kind, f"{inside.text}, {name}-compressed", inside.arch)


def _unknown(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a page of the web (HTML)"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return f"text: {printable(head[:40].decode('ascii').strip())!r}"
    return f"of an unknown kind, it begins with {head[:8].hex(' ')}"
