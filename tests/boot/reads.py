"""Images and programs, read and made by other means than those that are tested."""

import json
import struct
import subprocess
from pathlib import Path


def table(image: Path) -> list[dict[str, object]]:
    """The partitions, as sfdisk reads them; it checks both tables and their sums."""
    told = subprocess.run(["/sbin/sfdisk", "--json", image], capture_output=True, text=True, check=True)
    assert not told.stderr
    found = json.loads(told.stdout)["partitiontable"]
    assert (found["label"], found["sectorsize"]) == ("gpt", 512)
    return list(found["partitions"])


def names(archive: bytes) -> dict[str, bytes]:
    """File name to content, by cpio's own reading."""
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    found = {}
    for name in listed.stdout.decode().split():
        if name in ("etc", "etc/phase"):
            continue
        shown = subprocess.run(
            ["cpio", "-i", "--quiet", "--to-stdout", name], input=archive, capture_output=True, check=True
        )
        found[name] = shown.stdout
    return found


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
