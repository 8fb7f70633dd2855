"""Where an x86_64 kernel goes, and what it is told.

Source: Linux Documentation/arch/x86/boot.rst ("64-bit boot protocol") and zero-page.rst.
"""

import struct

from phase.boot.errors import HandoffError
from phase.boot.kexec import Image, Segment
from phase.boot.ram import PAGE, Range, align, highest, without

PARAMS = "/sys/kernel/boot_params/data"
SYSTAB = "/sys/firmware/efi/systab"
#: Fields of the zero page.
_RSDP, _E820_COUNT, _HEADER, _E820, _MAX_E820 = 0x70, 0x1E8, 0x1F1, 0x2D0, 128
_RAM = 1
#: Below it: firmware's own tables, and where other processors start.
_LOW = 1 << 20
_ENTRY64 = 0x200


def image(
    head: bytes, kernel: tuple[int, int], initrd: int, cmdline: str, *, params: bytes, rsdp: int = 0
) -> Image:
    """Lay out a bzImage and its initrd.

    Args:
        head: the kernel file's first 4096 bytes.
        kernel: (offset, length) of the kernel in the initrd file.
        initrd: length of that file, which is the initrd.
        cmdline: the kernel's command line.
        params: the running kernel's boot parameters (`/sys/kernel/boot_params/data`), 4096 bytes.
        rsdp: address of the ACPI root table; that of `params` when 0.

    Raises:
        HandoffError: this is no kernel that can be started so, or it does not fit.
    """
    if head[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", head, 0x206)[0] < 0x20C:
        raise HandoffError("the kernel is no bzImage of boot protocol 2.12 or newer")
    loading = struct.unpack_from("<H", head, 0x236)[0]
    if not loading & 1:
        raise HandoffError("the kernel has no 64-bit entry point")
    words = cmdline.encode("ascii", "strict") + b"\0"
    if len(words) > struct.unpack_from("<I", head, 0x238)[0]:
        raise HandoffError(f"the command line has {len(words)} bytes; this kernel takes fewer")
    skip = ((head[0x1F1] or 4) + 1) * 512
    (preferred,), (needed,) = struct.unpack_from("<Q", head, 0x258), struct.unpack_from("<I", head, 0x260)
    steps = max(struct.unpack_from("<I", head, 0x230)[0], PAGE)

    memory = tuple(part for part in _memory(params) if part.end > _LOW)
    limit = struct.unpack_from("<I", head, 0x22C)[0] + 1
    # At the top: what the running machine has translated, cached or in use is mostly further down.
    at = highest(memory, align(needed), below=1 << 32, step=steps)
    if at < max(preferred, _LOW):
        raise HandoffError(f"no {needed >> 20} MiB of memory in one piece for the next kernel")
    left = without(memory, Range(at, at + align(needed)))
    ramdisk = highest(left, initrd, below=limit)
    told = highest(without(left, Range(ramdisk, align(ramdisk + initrd))), 3 * PAGE, below=limit)

    page = bytearray(PAGE)
    page[:0x40] = params[:0x40]
    page[_RSDP : _RSDP + 8] = struct.pack("<Q", rsdp or struct.unpack_from("<Q", params, _RSDP)[0])
    count = params[_E820_COUNT]
    page[_E820_COUNT] = count
    page[_E820 : _E820 + 20 * count] = params[_E820 : _E820 + 20 * count]
    end = 0x202 + head[0x201]
    page[_HEADER:end] = head[_HEADER:end]
    struct.pack_into("<B", page, 0x210, 0xFF)
    struct.pack_into("<II", page, 0x218, ramdisk, initrd)
    struct.pack_into("<I", page, 0x228, told + PAGE)
    # mov rsi, the page; mov rax, the entry; jmp rax
    go = b"\x48\xbe" + struct.pack("<Q", told) + b"\x48\xb8" + struct.pack("<Q", at + _ENTRY64) + b"\xff\xe0"
    block = bytes(page) + words.ljust(PAGE, b"\0") + go
    segments = (
        # With what it needs beyond the file: the running kernel keeps its page tables out of that, and
        # they are in use until the next one has unpacked itself there.
        Segment(at, needed, (kernel[0] + skip, kernel[1] - skip)),
        Segment(ramdisk, initrd, (0, initrd)),
        Segment(told, len(block), block),
    )
    return Image(told + 2 * PAGE, segments)


def _memory(params: bytes) -> tuple[Range, ...]:
    if len(params) != PAGE:
        raise HandoffError(f"{PARAMS} has {len(params)} bytes, not {PAGE}")
    count = params[_E820_COUNT]
    if not 0 < count <= _MAX_E820:
        raise HandoffError(
            f"the firmware's memory map has {count} entries; 1 to {_MAX_E820} can be passed on"
        )
    found = []
    for number in range(count):
        start, size, kind = struct.unpack_from("<QQI", params, _E820 + 20 * number)
        if kind == _RAM:
            found.append(Range(align(start), (start + size) // PAGE * PAGE))
    return tuple(found)


def root_table(systab: str) -> int:
    """The ACPI root table's address, out of UEFI's list of tables (`/sys/firmware/efi/systab`)."""
    tables = dict(line.partition("=")[::2] for line in systab.splitlines())
    return int(tables.get("ACPI20") or tables.get("ACPI") or "0", 16)
