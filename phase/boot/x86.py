"""Where an x86_64 kernel goes, and what it is told.

Source: Linux Documentation/arch/x86/boot.rst ("64-bit boot protocol") and zero-page.rst.

Of a kernel of 14 MB that unpacks itself to 54, only the file is given to `kexec_load`: all that is given to
it, zeros too, the running kernel keeps a second time, and counts in the half of memory that it allows.
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
#: Addresses that our page tables map, and pages that these take.
_MAPPED = 1 << 32
_TABLES = 7
CPUS = "/proc/cpuinfo"


def image(
    head: bytes,
    kernel: tuple[int, int],
    initrd: int,
    cmdline: str,
    *,
    params: bytes,
    rsdp: int = 0,
    plain: bool = True,
) -> Image:
    """Lay out a bzImage and its initrd.

    Args:
        head: the kernel file's first 4096 bytes.
        kernel: (offset, length) of the kernel in the initrd file.
        initrd: length of that file, which is the initrd.
        cmdline: the kernel's command line.
        params: the running kernel's boot parameters (`/sys/kernel/boot_params/data`), 4096 bytes.
        rsdp: address of the ACPI root table; that of `params` when 0.
        plain: whether memory is not encrypted, see `is_plain`.

    Raises:
        HandoffError: this is no kernel that can be started so, or it does not fit.
    """
    if head[0x202:0x206] != b"HdrS" or struct.unpack_from("<H", head, 0x206)[0] < 0x20C:
        raise HandoffError("the kernel is not a bzImage of boot protocol 2.12 or newer")
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
    at = highest(memory, align(needed), below=_MAPPED, step=steps)
    if at < max(preferred, _LOW):
        raise HandoffError(f"no {needed >> 20} MiB of memory in one piece for the next kernel")
    left = without(memory, Range(at, at + align(needed)))
    ramdisk = highest(left, initrd, below=limit)
    left = without(left, Range(ramdisk, align(ramdisk + initrd)))
    told = highest(left, (3 + _TABLES) * PAGE, below=min(limit, _MAPPED))

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
    go = _go(told, at + _ENTRY64)
    block = bytes(page) + words.ljust(PAGE, b"\0") + go.ljust(PAGE, b"\0") + _tables(told + 3 * PAGE)
    length = kernel[1] - skip
    segments = (
        # Without what it needs beyond the file: it clears that itself.
        Segment(at, align(length) if plain else needed, (kernel[0] + skip, length)),
        Segment(ramdisk, initrd, (0, initrd)),
        Segment(told, len(block), block),
    )
    return Image(told + 2 * PAGE, segments)


def is_plain(cpuinfo: str) -> bool:
    """Whether page tables of our own can be used, which do not say which memory is encrypted.

    Args:
        cpuinfo: `/proc/cpuinfo`.
    """
    words = set(cpuinfo.split())
    return not words & {"sme", "sev", "sev_es", "sev_snp", "tdx_guest"}


def _go(told: int, entry: int) -> bytes:
    """The first instructions: take our own page tables, and begin in the kernel.

    The running kernel's are wherever it found room, perhaps where the next one unpacks itself before it has
    made its own.
    """
    tables = told + 3 * PAGE
    return b"".join(
        (
            b"\x0f\x20\xe0",  # mov rax, cr4
            b"\x0f\xba\xe0\x0c",  # bt eax, 12: are addresses translated in five steps?
            b"\x48\xb8" + struct.pack("<Q", tables + PAGE),  # mov rax, the table of four
            b"\x48\xb9" + struct.pack("<Q", tables),  # mov rcx, the table of five
            b"\x48\x0f\x42\xc1",  # cmovc rax, rcx
            b"\x0f\x22\xd8",  # mov cr3, rax
            b"\x48\xbe" + struct.pack("<Q", told),  # mov rsi, the zero page
            b"\x48\xb8" + struct.pack("<Q", entry),  # mov rax, entry
            b"\xff\xe0",  # jmp rax
        )
    )


def _tables(at: int) -> bytes:
    """Page tables that map the first 4 GiB to themselves, in pieces of 2 MiB; at an address.

    One page each: the table of five levels, that of four, four entries for a gigabyte each, and their four.

    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, section 4.5.
    """
    present_writable, large = 3, 1 << 7
    top = struct.pack("<Q", (at + PAGE) | present_writable).ljust(PAGE, b"\0")
    four = struct.pack("<Q", (at + 2 * PAGE) | present_writable).ljust(PAGE, b"\0")
    each = [(at + (3 + number) * PAGE) | present_writable for number in range(4)]
    gigabytes = struct.pack("<4Q", *each).ljust(PAGE, b"\0")
    pieces = [(number << 21) | present_writable | large for number in range(4 * 512)]
    return top + four + gigabytes + struct.pack("<2048Q", *pieces)


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
