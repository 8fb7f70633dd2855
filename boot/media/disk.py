"""A disk image that UEFI firmware boots from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from boot.errors import BuildError
from boot.media import ext4, fat, gpt
from phase.boot import cache

Files = Mapping[str, bytes | Path]
#: Bytes of the smallest file system for releases: the seed keeps two while one arrives.
LEAST_CACHE = 128 << 20


def write(image: Path, files: Files, *, kept: int = 0) -> None:
    """Make a disk image with an EFI system partition. The same files give the same bytes.

    Args:
        image: the file; it is made, or replaced.
        files: path in that partition to content.
        kept: bytes of a partition on which a seed keeps releases; 0 for none.

    Raises:
        BuildError: that partition is too small; a tool is missing, or failed.
    """
    if 0 < kept < LEAST_CACHE or kept % gpt.ALIGNMENT:
        raise BuildError(f"no cache of {kept} bytes: {LEAST_CACHE >> 20}M is the least, in whole mebibytes")
    name = identity(files)
    length = fat.size(files)
    partitions = [gpt.Partition("phase-esp", gpt.ESP, length)]
    if kept:
        partitions.append(gpt.Partition(cache.LABEL, gpt.LINUX, kept))
    starts = gpt.write(image, partitions, identity=name)
    fat.write(image, files, offset=starts[0], length=length, serial=serial(name))
    if kept:
        number = gpt.guid(name, "file system")
        ext4.write(image, offset=starts[1], length=kept, label=cache.LABEL, identity=number)


def identity(files: Files) -> str:
    """A hash of all content: a medium is called by it, so that another one has another name."""
    total = hashlib.sha256()
    for name in sorted(files):
        content = files[name]
        data = content.read_bytes() if isinstance(content, Path) else content
        total.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return total.hexdigest()


def serial(identity: str) -> int:
    """The number of a FAT file system, 32 bits."""
    return int(identity[:8], 16)
