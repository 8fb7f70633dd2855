"""Where an arm64 kernel goes, and the device tree it is given.

Sources: Linux Documentation/arch/arm64/booting.rst; Devicetree Specification 0.4, chapter 5.
"""

import struct
from collections.abc import Mapping

from phase.boot.errors import HandoffError
from phase.boot.kexec import Image, Segment
from phase.boot.ram import PAGE, Range, align, highest, lowest, without

TREE = "/sys/firmware/fdt"
MAP = "/proc/iomem"
_KERNEL_STEP = 2 << 20
#: A device tree may not be longer.
_MAX_TREE = 2 << 20
_BEGIN, _END, _PROPERTY, _NOP, _LAST = 1, 2, 3, 4, 9
_CHOSEN = b"chosen"
# ldr x0, tree; ldr x16, kernel; mov x1, xzr; mov x2, xzr; mov x3, xzr; br x16
_GO = struct.pack("<6I", 0x580000C0, 0x580000F0, 0xAA1F03E1, 0xAA1F03E2, 0xAA1F03E3, 0xD61F0200)


def image(
    head: bytes,
    kernel: tuple[int, int],
    initrd: int,
    cmdline: str,
    *,
    tree: bytes,
    iomem: str,
    chance: bytes,
) -> Image:
    """Lay out an Image and its initrd.

    Args:
        head: the kernel file's first 4096 bytes.
        kernel: (offset, length) of the kernel in the initrd file.
        initrd: length of that file, which is the initrd.
        cmdline: the kernel's command line.
        tree: the running machine's device tree (`/sys/firmware/fdt`).
        iomem: `/proc/iomem`, read as root.
        chance: 72 random bytes: the next kernel's place and the start of its entropy.

    Raises:
        HandoffError: this is no kernel that can be started so, or it does not fit.
    """
    if head[0x38:0x3C] != b"ARM\x64":
        raise HandoffError("the kernel is not an arm64 Image")
    offset, needed = struct.unpack_from("<QQ", head, 8)
    needed = max(needed, kernel[1])
    memory = _memory(iomem)
    at = lowest(memory, offset + needed, step=_KERNEL_STEP) + offset
    left = without(memory, Range(0, align(at + needed)))
    ramdisk = highest(left, initrd, below=1 << 48)
    chosen = {
        b"bootargs": cmdline.encode("ascii", "strict") + b"\0",
        b"linux,initrd-start": struct.pack(">Q", ramdisk),
        b"linux,initrd-end": struct.pack(">Q", ramdisk + initrd),
        b"kaslr-seed": chance[:8],
        b"rng-seed": chance[8:],
    }
    told = with_chosen(tree, chosen)
    if len(told) > _MAX_TREE - PAGE:
        raise HandoffError(f"the device tree has {len(told)} bytes")
    block = align(len(told), 8)
    # In one piece of two mebibytes: the kernel maps no more of it than that.
    place = highest(
        without(left, Range(ramdisk, align(ramdisk + initrd))), _MAX_TREE, below=1 << 48, step=_MAX_TREE
    )
    content = told.ljust(block, b"\0") + _GO + struct.pack("<QQ", place, at)
    segments = (
        # Without what it needs beyond the file: it clears that itself, and here it would be copied.
        Segment(at, kernel[1], kernel),
        Segment(ramdisk, initrd, (0, initrd)),
        Segment(place, len(content), content),
    )
    return Image(place + block, segments)


def _memory(iomem: str) -> tuple[Range, ...]:
    """RAM, without what firmware and the running kernel hold back."""
    ram: tuple[Range, ...] = ()
    for line in iomem.splitlines():
        place, _, what = line.partition(" : ")
        first, _, last = place.strip().partition("-")
        part = Range(int(first, 16), int(last, 16) + 1)
        if what == "System RAM":
            ram = (*ram, Range(align(part.start), part.end // PAGE * PAGE))
        elif what == "reserved" and line.startswith(" "):
            ram = without(ram, Range(part.start // PAGE * PAGE, align(part.end)))
    if not any(part.end > PAGE for part in ram):
        raise HandoffError(f"{MAP} names no memory; only root sees it")
    return ram


def with_chosen(tree: bytes, properties: Mapping[bytes, bytes]) -> bytes:
    """A device tree whose `/chosen` has these properties, in place of others of these names.

    Raises:
        HandoffError: it is no device tree.
    """
    try:
        return _with_chosen(tree, properties)
    except (struct.error, IndexError, ValueError) as error:
        raise HandoffError(f"{TREE} is not a device tree that can be read: {error}") from error


def _with_chosen(tree: bytes, properties: Mapping[bytes, bytes]) -> bytes:
    magic, _, structure, strings, reserved, version, last, cpu, strings_size, _ = struct.unpack_from(
        ">10I", tree
    )
    if magic != 0xD00DFEED or version < 17:
        raise ValueError(f"magic {magic:#x}, version {version}")
    names = bytearray(tree[strings : strings + strings_size])
    added = bytearray()
    for name, value in properties.items():
        added += struct.pack(">3I", _PROPERTY, len(value), len(names)) + value.ljust(
            align(len(value), 4), b"\0"
        )
        names += name + b"\0"
    out = bytearray()
    position, depth, inside, done = structure, 0, False, False
    while True:
        (token,) = struct.unpack_from(">I", tree, position)
        begin, position = position, position + 4
        if token == _BEGIN:
            end = tree.index(b"\0", position)
            inside = depth == 1 and tree[position:end] == _CHOSEN
            depth += 1
            position = align(end + 1, 4)
            out += tree[begin:position]
            if inside:
                # Properties come before a node's children.
                out += added
                done = True
        elif token == _PROPERTY:
            length, name_at = struct.unpack_from(">2I", tree, position)
            position = align(position + 8 + length, 4)
            name = bytes(names[name_at : names.index(0, name_at)])
            if not (inside and depth == 2 and name in properties):
                out += tree[begin:position]
        elif token == _END:
            depth -= 1
            inside = False
            if depth == 0 and not done:
                node = struct.pack(">I", _BEGIN) + (_CHOSEN + b"\0").ljust(8, b"\0")
                out += node + added + struct.pack(">I", _END)
            out += tree[begin:position]
        elif token == _LAST:
            out += tree[begin:position]
            break
        elif token != _NOP:
            raise ValueError(f"token {token} at {begin}")
    # Addresses the first boot held back, up to the pair of zeros that ends them.
    end = reserved
    while struct.unpack_from(">2Q", tree, end) != (0, 0):
        end += 16
    held = tree[reserved : end + 16]
    at = 40 + len(held)
    header = (0xD00DFEED, at + len(out) + len(names), at, at + len(out), 40, 17, min(last, 16), cpu)
    return struct.pack(">10I", *header, len(names), len(out)) + held + bytes(out) + bytes(names)
