"""Frames between the runner and its worker: a count, then length-prefixed fields.

A worker's messages are frames with their length in front; the first field says which it is:

    READY    the engine is loaded, the cage closed: its layers, and what could not be had, a frame each
    COMPILE  bytes of memory that the compiler may have
    KEEP     a part of the compiled module, where the parent keeps it; the last one is empty
    RUNNING  the module is compiled and linked, and starts
    WANT     bytes of input read so far, bytes that the module asks for now
    AHEAD    the job reads its input without asking (a component): it is sent some ahead
    OUTPUT   number of an output file, a part of it
    DONE     how it ended, a detail, fuel burnt (empty: unknown), peak of its memory

No JSON here: the worker starts in a few milliseconds because it imports almost nothing, and
under emulation every import costs twenty times that.
"""

import os

#: Fields in one frame; a frame nests for lists.
MAX_FIELDS = 4096
#: Bytes of one message of a worker.
MAX_MESSAGE = 16 * 1024
READY, COMPILE, KEEP, RUNNING = b"ready", b"compile", b"keep", b"running"
WANT, AHEAD, OUTPUT, DONE = b"want", b"ahead", b"output", b"done"
#: Bytes of the compiled module, or of an output file, in one message.
PART_BYTES = MAX_MESSAGE - 64


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
        raise ValueError(f"a frame has {len(fields)} fields; the limit is {MAX_FIELDS}")
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
        raise ValueError(f"a frame has {count} fields; the limit is {MAX_FIELDS}")
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


def send(descriptor: int, *fields: bytes) -> None:
    """Write a message: a frame, with its length in 4 bytes before it."""
    frame = pack(*fields)
    write_all(descriptor, len(frame).to_bytes(4, "little") + frame)


def receive(buffer: bytearray) -> list[bytes] | None:
    """Take the first message off a buffer.

    Args:
        buffer: what has come so far; shortened by the message.

    Returns:
        Its fields; None if it is not complete yet.

    Raises:
        ValueError: longer than `MAX_MESSAGE`, or not a frame.
    """
    if len(buffer) < 4:
        return None
    size = int.from_bytes(buffer[:4], "little")
    if size > MAX_MESSAGE:
        raise ValueError(f"a message has {size} bytes; the limit is {MAX_MESSAGE}")
    if len(buffer) < 4 + size:
        return None
    fields = unpack(bytes(buffer[4 : 4 + size]))
    del buffer[: 4 + size]
    return fields


def too_large(compile_bytes: int) -> str:
    """What is said of a module that the compiler cannot be given enough memory for."""
    return f"module needs more than {compile_bytes >> 20} MB to compile"


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
