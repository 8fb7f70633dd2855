import contextlib
import itertools
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase.boot import arm64
from phase.boot.errors import HandoffError

MIB = 1 << 20
#: What the emulated machine shows with 512 MiB, shortened.
IOMEM = """\
09000000-09000fff : pl011@9000000
  09000000-09000fff : 9000000.pl011 pl011@9000000
40000000-5fffffff : System RAM
  40210000-417effff : Kernel code
  417f0000-41beffff : reserved
  41bf0000-41ffffff : Kernel data
  48000000-48006fff : reserved
  5e000000-5fffffff : reserved
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real one, as QEMU gives it to its machine."""
    path = tmp_path_factory.mktemp("fdt") / "virt.dtb"
    subprocess.run(
        ["qemu-system-aarch64", "-machine", f"virt,dumpdtb={path}", "-append", "quiet", "-kernel", __file__],
        check=True,
        capture_output=True,
    )
    return Path(path).read_bytes()


def read(blob: bytes) -> dict[str, bytes]:
    """Path to value, of every property."""
    _, _, structure, strings = struct.unpack_from(">4I", blob)
    found, path, position = {}, [], structure
    while True:
        (token,) = struct.unpack_from(">I", blob, position)
        position += 4
        if token == 1:
            end = blob.index(b"\0", position)
            path.append(blob[position:end].decode())
            position = (end + 4) // 4 * 4
        elif token == 2:
            path.pop()
        elif token == 3:
            length, name = struct.unpack_from(">2I", blob, position)
            name_end = blob.index(b"\0", strings + name)
            key = "/".join([*path, blob[strings + name : name_end].decode()])
            found[key] = blob[position + 8 : position + 8 + length]
            position += 8 + (length + 3) // 4 * 4
        elif token == 9:
            return found


def test_changes_the_chosen_properties_and_nothing_else(tree: bytes) -> None:
    before = read(tree)
    assert "/chosen/stdout-path" in before
    after = read(arm64.with_chosen(tree, {b"bootargs": b"console=ttyAMA0\0", b"kaslr-seed": b"12345678"}))
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"/chosen/bootargs", "/chosen/kaslr-seed"}
    assert after["/chosen/bootargs"] == b"console=ttyAMA0\0"
    assert after["/chosen/kaslr-seed"] == b"12345678"


def test_the_same_again_changes_nothing(tree: bytes) -> None:
    once = arm64.with_chosen(tree, {b"bootargs": b"a\0"})
    assert read(arm64.with_chosen(once, {b"bootargs": b"a\0"})) == read(once)
    assert struct.unpack_from(">I", once, 4)[0] == len(once)


def test_memory_that_the_tree_holds_back_stays_held_back(tree: bytes) -> None:
    """A spin table of the firmware, for one: the next kernel would write over it."""
    magic, total, structure, strings, reserved, *rest = struct.unpack_from(">10I", tree)
    held = struct.pack(">4Q", 0x4800_0000, 0x1000, 0x5000_0000, 0x2000)
    assert reserved < min(structure, strings)  # both move
    head = struct.pack(
        ">10I", magic, total + len(held), structure + len(held), strings + len(held), reserved, *rest
    )
    holding = head + tree[len(head) : reserved] + held + tree[reserved:]
    told = arm64.with_chosen(holding, {b"bootargs": b"a\0"})
    (place,) = struct.unpack_from(">I", told, 16)
    assert told[place : place + len(held) + 16] == held + bytes(16)
    assert read(told) == read(arm64.with_chosen(tree, {b"bootargs": b"a\0"}))


def test_adds_the_node_where_there_is_none(tree: bytes) -> None:
    other = tree.replace(b"chosen\0\0", b"chozen\0\0", 1)
    assert read(arm64.with_chosen(other, {b"bootargs": b"a\0"}))["/chosen/bootargs"] == b"a\0"


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_tree_is_an_error_and_no_more(tree: bytes, data: st.DataObject) -> None:
    short = arm64.with_chosen(tree, {})
    damaged = bytearray(short)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(short) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HandoffError):
        arm64.with_chosen(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]), {b"bootargs": b"a\0"})


def head(size: int = 30 * MIB, offset: int = 0) -> bytes:
    page = bytearray(4096)
    struct.pack_into("<QQ", page, 8, offset, size)
    page[0x38:0x3C] = b"ARM\x64"
    return bytes(page)


def test_everything_is_in_memory_and_apart(tree: bytes) -> None:
    image = arm64.image(
        head(), (512, 27 * MIB), 52 * MIB, "quiet", tree=tree, iomem=IOMEM, chance=bytes(range(72))
    )
    kernel, initrd, told = image.segments
    assert kernel.address % (2 * MIB) == 0
    places = sorted(
        [(kernel.address, kernel.address + 30 * MIB)]
        + [(part.address, part.address + part.size) for part in (initrd, told)]
    )
    assert all(end <= after for (_, end), (after, _) in itertools.pairwise(places))
    held = [(0x417F0000, 0x41BF0000), (0x48000000, 0x48007000), (0x5E000000, 0x60000000)]
    assert not [1 for start, end in places for first, last in held if start < last and first < end]
    assert told.address // (2 * MIB) == (told.address + told.size - 1) // (2 * MIB)
    assert isinstance(told.content, bytes)
    chosen = read(told.content)
    assert struct.unpack(">Q", chosen["/chosen/linux,initrd-start"]) == (initrd.address,)
    assert struct.unpack(">Q", chosen["/chosen/linux,initrd-end"]) == (initrd.address + 52 * MIB,)
    assert chosen["/chosen/kaslr-seed"] == bytes(range(8))
    code = told.content[image.entry - told.address :]
    assert struct.unpack_from("<QQ", code, 24) == (told.address, kernel.address)


def test_a_kernel_lies_as_far_behind_a_boundary_as_it_asks(tree: bytes) -> None:
    image = arm64.image(
        head(offset=0x80000), (512, MIB), 9 * MIB, "quiet", tree=tree, iomem=IOMEM, chance=bytes(72)
    )
    assert image.segments[0].address % (2 * MIB) == 0x80000


def test_refuses_what_cannot_start(tree: bytes) -> None:
    def lay_out(start: bytes, blob: bytes, iomem: str) -> None:
        arm64.image(start, (0, MIB), 9 * MIB, "quiet", tree=blob, iomem=iomem, chance=bytes(72))

    with pytest.raises(HandoffError, match="not an arm64 Image"):
        lay_out(bytes(4096), tree, IOMEM)
    with pytest.raises(HandoffError, match="device tree"):
        lay_out(head(), b"nonsense" * 8, IOMEM)
    with pytest.raises(HandoffError, match="only root sees it"):
        lay_out(head(), tree, "00000000-00000000 : System RAM\n")
    with pytest.raises(HandoffError, match="one piece"):
        lay_out(head(), tree, "40000000-41ffffff : System RAM\n")


def test_a_device_tree_that_the_kernel_would_not_map_is_refused(tree: bytes) -> None:
    """It may grow by what is written into it, and no more."""
    head = bytearray(4096)
    head[0x38:0x3C] = b"ARM\x64"
    struct.pack_into("<QQ", head, 8, 0, 8 * MIB)

    def lay_out(words: int) -> object:
        return arm64.image(
            bytes(head), (0, MIB), MIB, "x" * words, tree=tree, iomem=IOMEM, chance=bytes(range(72))
        )

    assert lay_out(100)
    with pytest.raises(HandoffError, match=r"the device tree has \d+ bytes"):
        lay_out(2 * MIB)
