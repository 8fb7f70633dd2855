"""The second kernel's initrd: a whole release in front of its own initramfs.

    uncompressed cpio   phase/release/blobs/sha256/{hex}    every artifact, rootfs included
                        phase/release/metadata/*.json       the signed metadata they were verified by
    initramfs artifact  as it was signed

The kernel unpacks both parts into one tree, so the system finds its rootfs as a file to mount, and
the release whole, to serve to the next machine. The layout is planned before a byte is fetched:
artifacts are written straight to their place in the one file.
"""

from collections.abc import Mapping
from typing import NamedTuple

from phase.boot import cpio
from phase.release.manifest import Manifest

BLOBS = "phase/release/blobs/sha256"
METADATA = "phase/release/metadata"


class Slot(NamedTuple):
    """Where an artifact's bytes go."""

    sha256: str
    offset: int
    length: int


class Plan(NamedTuple):
    """The layout of an initrd file.

    Attributes:
        pieces: (offset, bytes) of everything that is not an artifact; together with the slots and the tail
            they cover every byte.
        slots: where each artifact goes; the manifest's `initramfs` also stands at `tail`.
        tail: offset at which the initramfs artifact is repeated for the kernel to unpack.
        size: bytes of the finished file.
    """

    pieces: tuple[tuple[int, bytes], ...]
    slots: tuple[Slot, ...]
    tail: int
    size: int


def plan(manifest: Manifest, metadata: Mapping[str, bytes], *, also: tuple[Manifest, ...] = ()) -> Plan:
    """Lay out the initrd of one release.

    Args:
        manifest: the release that boots.
        metadata: file name to bytes: the metadata a client needs to verify it.
        also: releases of other architectures or channels to carry along and serve.

    Returns:
        The plan. Artifacts with equal content share one slot.
    """
    pieces: list[tuple[int, bytes]] = []
    slots: list[Slot] = []
    offset = 0
    inode = 0

    def put(path: str, mode: int, data: bytes | None, length: int) -> int:
        """Place one entry; returns where its content starts."""
        nonlocal offset, inode
        inode += 1
        head = cpio.header(path, mode, length, inode=inode)
        padding = bytes(-length % 4)
        start = offset + len(head)
        if data is None:
            pieces.append((offset, head))
            if padding:
                pieces.append((start + length, padding))
        else:
            pieces.append((offset, head + data + padding))
        offset = start + length + len(padding)
        return start

    for directory in ("phase", "phase/release", "phase/release/blobs", BLOBS, METADATA):
        put(directory, 0o040755, b"", 0)
    for name in sorted(metadata):
        put(f"{METADATA}/{name}", 0o100644, metadata[name], len(metadata[name]))
    placed: set[str] = set()
    for release in (manifest, *also):
        for name in sorted(release.artifacts):
            artifact = release.artifacts[name]
            if artifact.sha256 in placed:
                continue
            placed.add(artifact.sha256)
            start = put(f"{BLOBS}/{artifact.sha256}", 0o100644, None, artifact.length)
            slots.append(Slot(artifact.sha256, start, artifact.length))
    put("TRAILER!!!", 0, b"", 0)
    # The kernel looks for the next archive at any multiple of four after zeros; 512 is customary.
    tail = offset + (-offset % 512)
    if tail > offset:
        pieces.append((offset, bytes(tail - offset)))
    return Plan(tuple(pieces), tuple(slots), tail, tail + manifest.artifacts["initramfs"].length)
