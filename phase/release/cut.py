"""Chunks that are cut by content, so that a change moves only the boundaries near it.

A release lists them in one text: for each chunk its length (four bytes, big-endian) and its SHA-256, in
base64, which makes 48 letters a chunk. One text costs a machine that boots a fraction of what a list of as
many values costs it.

Only who makes a release cuts (FastCDC of 2020, by pyfastcdc). Who fetches takes the list as it is.
"""

import struct
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from phase.release.errors import ManifestError

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

MAX_CHUNKS = 65_536
#: Bounds for every chunk; the last one may be shorter.
SHORTEST, LONGEST = 1 << 14, 1 << 24
_RECORD = struct.Struct(">I32s")
#: Letters of one record in base64: its 36 bytes need no padding.
_LETTERS = 48
#: Files shorter than so many bytes are cut into chunks of so many bytes on average. Chunks of 64 KiB suit a
#: squashfs: one of its blocks is about as long. Longer files get longer chunks, to keep the list short.
_AVERAGES = ((256 << 20, 1 << 16), (2 << 30, 1 << 18))
_LARGEST_AVERAGE = 1 << 20


def cutter(length: int) -> "FastCDC":
    """What cuts a file.

    The cuts are part of what makes the next release cheap: other parameters, or another library that cuts
    elsewhere, make all chunks new once.

    Args:
        length: bytes of the file.
    """
    from pyfastcdc import FastCDC

    average = next((average for below, average in _AVERAGES if length < below), _LARGEST_AVERAGE)
    return FastCDC(average, min_size=average // 4, max_size=average * 4, normalized_chunking=2)


def write(chunks: Iterable[tuple[int, bytes]]) -> str:
    """The list of a file's chunks.

    Args:
        chunks: length and SHA-256 of each.
    """
    return b2a_base64(b"".join(_RECORD.pack(*each) for each in chunks), newline=False).decode()


def read(text: object, length: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Read a list of chunks.

    Args:
        text: as `write` returns it, from anybody.
        length: bytes of the file.

    Returns:
        Where each chunk starts, and where the last one ends; the SHA-256 of each, in hex.

    Raises:
        ManifestError: it is not such a list, or not one of a file of this length.
    """
    if not isinstance(text, str) or len(text) % _LETTERS:
        raise ManifestError("has a damaged list of chunks")
    if len(text) > MAX_CHUNKS * _LETTERS:
        raise ManifestError(f"has {len(text) // _LETTERS} chunks; the limit is {MAX_CHUNKS}")
    try:
        data = a2b_base64(text, strict_mode=True)
    except (Error, ValueError) as error:
        raise ManifestError("has a damaged list of chunks") from error
    if len(data) % _RECORD.size:
        raise ManifestError("has a damaged list of chunks")
    starts, hashes = [0], []
    for size, digest in _RECORD.iter_unpack(data):
        hashes.append(digest.hex())
        starts.append(starts[-1] + size)
        if not (SHORTEST if starts[-1] < length else 1) <= size <= LONGEST:
            raise ManifestError(f"has a chunk of {size} bytes")
    if starts[-1] != length:
        raise ManifestError(f"has {length} bytes, and its chunks {starts[-1]}")
    return tuple(starts), tuple(hashes)
