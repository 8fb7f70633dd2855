"""A FAT32 file system inside of an image, by mtools."""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from boot.run import run

SECTOR = 512
#: FAT32 has at least so many clusters; with fewer, a reader takes it for FAT16.
#: Source: Microsoft's FAT specification 1.03, "FAT Type Determination".
_LEAST_CLUSTERS = 65_525
#: Bytes of a cluster, so that a file system of 34 MB can be FAT32.
_CLUSTER = SECTOR
_MEBIBYTE = 1 << 20
#: A user's own mtools configuration must not reach the image.
_ENVIRONMENT = {"MTOOLSRC": "/dev/null"}


def size(files: Mapping[str, bytes | Path]) -> int:
    """Bytes of a file system that these files fit into: whole mebibytes, with some room left.

    Args:
        files: path to content.
    """
    clusters = sum(-(-_length(content) // _CLUSTER) for content in files.values())
    # 4 bytes for each cluster in each of two tables; the rest is for directories.
    least = max(clusters, _LEAST_CLUSTERS) * (_CLUSTER + 2 * 4) + _MEBIBYTE
    return -(-least // _MEBIBYTE) * _MEBIBYTE


def write(image: Path, files: Mapping[str, bytes | Path], *, offset: int, length: int, serial: int) -> None:
    """Make a file system in an image, with these files and no others.

    Times are those of `boot.run`; names are written in order.

    Args:
        image: a file, long enough.
        files: path to content.
        offset: bytes before the file system.
        length: bytes of it.
        serial: its number, 32 bits.
    """
    place = ["-i", f"{image}@@{offset}"]
    geometry = ["-h", "255", "-s", "63", "-H", str(offset // SECTOR), "-T", str(length // SECTOR)]
    options = ["-F", "-c", "1", "-d", "2", "-N", f"{serial:08x}", "-v", "PHASE"]
    run(["mformat", *place, *geometry, *options, "::"], env=_ENVIRONMENT)
    names = sorted(files)
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    for parent in sorted(parents):
        run(["mmd", *place, f"::/{parent}"], env=_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            run(["mcopy", *place, _file(files[name], Path(directory)), f"::/{name}"], env=_ENVIRONMENT)


def _file(content: bytes | Path, directory: Path) -> Path:
    if isinstance(content, Path):
        return content
    (directory / "content").write_bytes(content)
    return directory / "content"


def _length(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)
