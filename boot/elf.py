"""Libraries less what no running program reads."""

import io
import struct

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from boot.errors import BuildError

#: Where a 64-bit header says where the section headers are: `e_shoff`, then `e_shnum` and `e_shstrndx`.
#: Source: System V ABI, "ELF Header".
_TABLE, _COUNT = 40, 60


def loaded(data: bytes, name: str) -> bytes:
    """What a loader uses of a shared library: its segments, without symbols and lines for a debugger.

    Wheels come with them: five sixths of PyNaCl's file, a sixth of wasmtime's. `strip` is not used because
    that of a host knows the host's architecture only.

    Args:
        data: the file, 64-bit and little-endian.
        name: of the file, for errors.

    Returns:
        The same bytes up to the end of the last segment, with a header that names no sections.

    Raises:
        BuildError: it is not such a file.
    """
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.elfclass != 64 or not elf.little_endian:
            raise BuildError(f"{name} is not a 64-bit, little-endian ELF file")
        ends = [segment["p_offset"] + segment["p_filesz"] for segment in elf.iter_segments()]
        ends.append(elf["e_phoff"] + elf["e_phnum"] * elf["e_phentsize"])
    except ELFError as error:
        raise BuildError(f"{name} is not an ELF file: {error}") from error
    if max(ends) > len(data):
        raise BuildError(f"{name} has {len(data)} bytes, and its segments end at {max(ends)}")
    kept = bytearray(data[: max(ends)])
    struct.pack_into("<Q", kept, _TABLE, 0)
    struct.pack_into("<HH", kept, _COUNT, 0, 0)
    return bytes(kept)
