"""Frames on a stream between peers: one byte for the kind, four for the length, then the bytes.

Messages are JSON in frames of their own; module, input, output and receipts travel raw. Each frame has a
limit for its length, which is checked before anything is read, and each read has a deadline.
"""

import asyncio
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from phase.peer.errors import PeerError
from phase.peer.transport import Stream

#: Most bytes of module, input or output in one frame.
CHUNK = 64 << 10
#: Most bytes of a file's name.
MAX_NAME = 255
#: Most bytes of a message. Arguments and variables have 128 KiB at most; JSON may take six bytes for one.
MAX_MESSAGE = 1 << 20
#: Most bytes of a receipt; as `phase.dsse` reads envelopes.
MAX_RECEIPT = 4 << 20
#: Seconds for one frame to arrive, where the job says nothing else.
SECONDS = 15.0
_HEAD = struct.Struct(">BI")


class ProtocolError(PeerError):
    """The peer does not keep to the protocol of jobs."""


class Kind(IntEnum):
    """What a frame holds."""

    #: A message, JSON.
    MESSAGE = 1
    #: A part of the module.
    MODULE = 2
    #: A part of the job's input; an empty one is its end.
    STDIN = 3
    #: A part of the job's output.
    STDOUT = 4
    STDERR = 5
    #: The receipt: a DSSE envelope, whole.
    RECEIPT = 6
    #: A part of a file, behind its name (`file_part`); a file without bytes has one part.
    FILE = 7


_MOST = {
    Kind.MESSAGE: MAX_MESSAGE,
    Kind.MODULE: CHUNK,
    Kind.STDIN: CHUNK,
    Kind.STDOUT: CHUNK,
    Kind.STDERR: CHUNK,
    Kind.RECEIPT: MAX_RECEIPT,
    Kind.FILE: 1 + MAX_NAME + CHUNK,
}


class Frame(NamedTuple):
    """One frame."""

    kind: Kind
    data: bytes


def pack(kind: Kind, data: bytes | memoryview) -> bytes:
    """The bytes of one frame."""
    return _HEAD.pack(kind, len(data)) + data


def file_frames(name: str, data: bytes) -> Iterator[bytes]:
    """The packed frames of one file.

    Args:
        name: at most 255 bytes of UTF-8.
        data: its content.
    """
    for start in range(0, max(len(data), 1), CHUNK):
        yield file_frame(name, data[start : start + CHUNK])


def file_frame(name: str, part: bytes) -> bytes:
    """A packed frame of a part of a file.

    Args:
        name: at most 255 bytes of UTF-8.
        part: at most `CHUNK` bytes.
    """
    head = name.encode()
    return pack(Kind.FILE, bytes((len(head),)) + head + part)


def file_part(data: bytes) -> tuple[str, bytes]:
    """The name of a file, and the part of it that a frame holds.

    Raises:
        ProtocolError: it is malformed.
    """
    try:
        end = 1 + data[0]
        return data[1:end].decode(), data[end:]
    except (IndexError, UnicodeDecodeError):
        raise ProtocolError("a part of a file has no name") from None


class Frames:
    """The frames of one stream.

    Args:
        stream: of which one task may read and another write.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._held = bytearray()
        self._unsent = bytearray()
        self._writing = asyncio.Lock()
        #: Whether the peer has finished, and all that it sent was read.
        self.ended = False

    @property
    def unsent(self) -> int:
        """Bytes that `later` has put back."""
        return len(self._unsent)

    def later(self, *frames: bytes) -> None:
        """Send packed frames with the next `send`: each one costs as much as a short frame."""
        for each in frames:
            self._unsent += each

    async def send(self, *frames: bytes) -> None:
        """Send packed frames, together, behind those put back; waits while the peer does not read.

        Raises:
            PeerError: the stream or the connection is over.
        """
        async with self._writing:
            data = bytes(self._unsent) + b"".join(frames)
            self._unsent.clear()
            if data:
                await self.stream.send(data)

    async def receive(self, *, seconds: float | None = SECONDS, message: int = MAX_MESSAGE) -> Frame | None:
        """The next frame; None when the peer has finished.

        Args:
            seconds: for the whole frame; None to wait without end.
            message: most bytes that a message may have here.

        Raises:
            ProtocolError: it is no frame, is longer than allowed, or came too slowly.
            PeerError: the stream or the connection is over.
        """
        if (found := self.here(message)) is not None:
            return found
        if seconds is None:
            return await self._next(message)
        try:
            async with asyncio.timeout(seconds):
                return await self._next(message)
        except TimeoutError:
            raise ProtocolError(f"the peer sent no whole frame within {seconds:g} s") from None

    def here(self, message: int = MAX_MESSAGE) -> Frame | None:
        """The next frame, if all of it has come already.

        Args:
            message: most bytes that a message may have here.

        Raises:
            ProtocolError: what has come is no frame, or is longer than allowed.
        """
        held = self._held
        if len(held) < _HEAD.size:
            return None
        number, length = _HEAD.unpack_from(held)
        kind, end = check_head(number, length, message), _HEAD.size + length
        if len(held) < end:
            return None
        data = bytes(memoryview(held)[_HEAD.size : end])
        del held[:end]
        return Frame(kind, data)

    async def _next(self, message: int) -> Frame | None:
        while (found := self.here(message)) is None:
            part = await self.stream.receive(CHUNK)
            if not part:
                if self._held:
                    raise ProtocolError("the stream ended within a frame")
                self.ended = True
                return None
            self._held += part
        return found


def check_head(number: int, length: int, message: int = MAX_MESSAGE) -> Kind:
    """Check the head of a frame, before anything of its content is read.

    Args:
        number: its kind.
        length: of its content, bytes.
        message: most bytes that a message may have here.

    Raises:
        ProtocolError: there is no such kind, or it is too long for its kind.
    """
    try:
        kind = Kind(number)
    except ValueError:
        raise ProtocolError(f"there is no frame of the kind {number}") from None
    most = message if kind is Kind.MESSAGE else _MOST[kind]
    if length > most:
        raise ProtocolError(f"a frame of {kind.name.lower()} has {length} bytes; the limit is {most}")
    return kind
