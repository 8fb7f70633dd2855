"""Frames between the runner and its worker: a count, then length-prefixed fields.

No JSON here: the worker starts in a few milliseconds because it imports almost nothing, and
under emulation every import costs twenty times that.
"""

import os

#: Fields in one frame; a frame nests for lists.
MAX_FIELDS = 4096


def pack(*fields: bytes) -> bytes:
    """Put fields into one frame.

    Args:
        fields: at most `MAX_FIELDS`, each below 4 GiB.

    Returns:
        The frame: a 4-byte count, then for each field 4 bytes of length and the bytes, all
        little-endian.

    Raises:
        ValueError: too many fields.
    """
    if len(fields) > MAX_FIELDS:
        raise ValueError(f"{len(fields)} fields in a frame, at most {MAX_FIELDS}")
    parts = [len(fields).to_bytes(4, "little")]
    for field in fields:
        parts += (len(field).to_bytes(4, "little"), field)
    return b"".join(parts)


def unpack(data: bytes) -> list[bytes]:
    """Take a frame apart.

    Args:
        data: exactly one frame.

    Returns:
        Its fields.

    Raises:
        ValueError: truncated, too many fields, or bytes left over.
    """
    count = _number(data, 0)
    if count > MAX_FIELDS:
        raise ValueError(f"{count} fields in a frame, at most {MAX_FIELDS}")
    fields = []
    at = 4
    for _ in range(count):
        size = _number(data, at)
        at += 4
        if at + size > len(data):
            raise ValueError(f"field of {size} bytes runs over the frame's end")
        fields.append(data[at : at + size])
        at += size
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes after the frame")
    return fields


def read_all(descriptor: int) -> bytes:
    """Read a pipe to its end."""
    parts = []
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however small the pipe's steps."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _number(data: bytes, at: int) -> int:
    if at + 4 > len(data):
        raise ValueError("frame ends inside a length")
    return int.from_bytes(data[at : at + 4], "little")
