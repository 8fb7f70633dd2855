import itertools
import struct

import pytest

from phase.boot import kexec, x86
from phase.boot.errors import HandoffError

MIB = 1 << 20
KERNEL = (8192, 12 * MIB)
INITRD = 41 * MIB


def head(**fields: int) -> bytes:
    page = bytearray(4096)
    page[0x1F1] = 15
    page[0x201] = 0x6C
    page[0x202:0x206] = b"HdrS"
    values = {"version": 0x20F, "limit": 0x7FFFFFFF, "step": 2 * MIB, "loading": 0x7F, "words": 2047}
    values |= {"preferred": 16 * MIB, "needed": 54 * MIB} | fields
    struct.pack_into("<H", page, 0x206, values["version"])
    struct.pack_into("<I", page, 0x22C, values["limit"])
    struct.pack_into("<I", page, 0x230, values["step"])
    struct.pack_into("<H", page, 0x236, values["loading"])
    struct.pack_into("<I", page, 0x238, values["words"])
    struct.pack_into("<Q", page, 0x258, values["preferred"])
    struct.pack_into("<I", page, 0x260, values["needed"])
    return bytes(page)


def params(*ranges: tuple[int, int, int]) -> bytes:
    page = bytearray(4096)
    page[:4] = b"scrn"
    struct.pack_into("<Q", page, 0x70, 0xE0000)
    page[0x1E8] = len(ranges)
    for number, entry in enumerate(ranges):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * number, *entry)
    return bytes(page)


RAM = params((0, 640 << 10, 1), (640 << 10, 384 << 10, 2), (MIB, 254 * MIB, 1), (255 * MIB, MIB, 2))


def lay_out(cmdline: str = "quiet", *, start: bytes | None = None, memory: bytes = RAM) -> kexec.Image:
    return x86.image(start or head(), KERNEL, INITRD, cmdline, params=memory)


def test_everything_is_in_memory_and_apart() -> None:
    image = lay_out()
    places = sorted((part.address, part.address + part.size) for part in image.segments)
    assert all(end <= after for (_, end), (after, _) in itertools.pairwise(places))
    assert places[0][0] >= MIB
    assert places[-1][1] <= 255 * MIB
    assert all(address % 4096 == 0 for address, _ in places)


def test_the_kernel_is_told_what_it_needs() -> None:
    kernel, initrd, told = lay_out("quiet console=ttyS0").segments
    assert kernel.content == (8192 + 16 * 512, 12 * MIB - 16 * 512)
    assert kernel.size == 12 * MIB - 16 * 512
    # What it needs beyond its file is free when it starts.
    space = range(kernel.address, kernel.address + 54 * MIB)
    assert initrd.address not in space
    assert initrd.address + INITRD - 1 not in space
    assert told.address not in space
    assert initrd.content == (0, INITRD)
    assert isinstance(told.content, bytes)
    page = told.content[:4096]
    assert page[:4] == b"scrn"
    assert struct.unpack_from("<Q", page, 0x70)[0] == 0xE0000
    assert page[0x1E8] == 4
    assert page[0x2D0 : 0x2D0 + 80] == RAM[0x2D0 : 0x2D0 + 80]
    assert struct.unpack_from("<II", page, 0x218) == (initrd.address, INITRD)
    line = struct.unpack_from("<I", page, 0x228)[0] - told.address
    assert told.content[line:].startswith(b"quiet console=ttyS0\0")
    assert page[0x210] == 0xFF


def test_the_first_instructions_lead_into_the_kernel() -> None:
    image = lay_out()
    kernel, _, told = image.segments
    assert isinstance(told.content, bytes)
    code = told.content[image.entry - told.address :]
    tables = told.address + 3 * 4096
    assert code.startswith(b"\x0f\x20\xe0\x0f\xba\xe0\x0c")
    assert code[7:27] == struct.pack("<2sQ2sQ", b"\x48\xb8", tables + 4096, b"\x48\xb9", tables)
    assert code[27:34] == b"\x48\x0f\x42\xc1\x0f\x22\xd8"
    entry = kernel.address + 0x200
    assert code[34:54] == struct.pack("<2sQ2sQ", b"\x48\xbe", told.address, b"\x48\xb8", entry)
    assert code[54:56] == b"\xff\xe0"


@pytest.mark.parametrize("levels", [4, 5])
def test_our_page_tables_map_all_below_four_gibibytes_to_itself(levels: int) -> None:
    told = lay_out().segments[2]
    assert isinstance(told.content, bytes)
    content: bytes = told.content

    def entry(table: int, index: int) -> int:
        return int(struct.unpack_from("<Q", content, table - told.address + 8 * index)[0])

    for address in (0, 0x1234567, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        table = told.address + 3 * 4096 + (4096 if levels == 4 else 0)
        for shift in (48, 39, 30)[5 - levels :]:
            found = entry(table, (address >> shift) & 511)
            assert found & 0xFFF == 3, "present, writable, another table"
            table = found & ~0xFFF
        found = entry(table, (address >> 21) & 511)
        assert found & 0xFFF == 0x83, "present, writable, 2 MiB"
        assert found & ~0xFFF == address & ~0x1FFFFF
    assert entry(told.address + 4 * 4096, 1) == 0


def test_where_memory_is_encrypted_the_running_kernels_tables_stay() -> None:
    """They know which memory is; so nothing of them may lie where the next kernel unpacks itself."""
    assert x86.is_plain("flags : fpu vme sse2\n")
    assert not x86.is_plain("flags : fpu sev sse2\n")
    assert not x86.is_plain("flags : fpu sme\n")
    image = x86.image(head(), KERNEL, INITRD, "quiet", params=RAM, plain=False)
    assert image.segments[0].size == 54 * MIB


@pytest.mark.parametrize(
    ("start", "cmdline", "memory", "why"),
    [
        (bytes(4096), "quiet", RAM, "not a bzImage"),
        (head(version=0x20B), "quiet", RAM, "2.12 or newer"),
        (head(loading=0x7E), "quiet", RAM, "64-bit"),
        (head(words=4), "quiet", RAM, "takes fewer"),
        (head(), "quiet", params((MIB, 64 * MIB, 1)), "one piece"),
        (head(), "quiet", params((MIB, 80 * MIB, 1)), "one piece"),
        (head(), "quiet", params(), "0 entries"),
        (head(), "quiet", b"short", "5 bytes"),
    ],
)
def test_refuses_what_cannot_start(start: bytes, cmdline: str, memory: bytes, why: str) -> None:
    with pytest.raises(HandoffError, match=why):
        lay_out(cmdline, start=start, memory=memory)


def test_reads_the_root_table_out_of_what_uefi_lists() -> None:
    assert x86.root_table("ACPI20=0x7ff7e014\nACPI=0x7ff7e000\nSMBIOS=0x7feb0000\n") == 0x7FF7E014
    assert x86.root_table("SMBIOS=0x7feb0000\n") == 0


@pytest.mark.parametrize(
    ("systab", "address"),
    [
        ("MPS=0x1\nACPI20=0x7ff0\nACPI=0x7fe0\n", 0x7FF0),
        ("ACPI=0x7fe0\nSMBIOS=0x1\n", 0x7FE0),
        ("SMBIOS=0x1\n", 0),
        ("", 0),
    ],
)
def test_the_newer_of_acpis_tables_counts(systab: str, address: int) -> None:
    assert x86.root_table(systab) == address


@pytest.mark.parametrize("version", [0x20B, 0x20C])
def test_the_oldest_boot_protocol_is_212(version: int) -> None:
    if version == 0x20C:
        assert lay_out(start=head(version=version))
        return
    with pytest.raises(HandoffError, match=r"2\.12 or newer"):
        lay_out(start=head(version=version))
