"""What passed on a segment, as a pcapng file (draft-ietf-opsawg-pcapng) that any network tool reads.

Every link is an interface of its own; inbound is what a machine sent, outbound what reached it. A frame
that was lost on the way is seen going in and not coming out.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

#: Bytes kept of each frame: beyond the headers, a release's bytes would fill the disk.
KEPT = 256
SUFFIX = ".pcapng"
_ETHERNET = 1
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_HEAD = struct.Struct("<IIIIIII")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

Direction = Literal["inbound", "outbound"]
# epb_flags: the lowest two bits are the direction.
_TAILS = {
    "inbound": struct.pack("<HHIHH", 2, 4, 1, 0, 0),
    "outbound": struct.pack("<HHIHH", 2, 4, 2, 0, 0),
}


class Captured(NamedTuple):
    """A frame in a capture.

    Attributes:
        at: nanoseconds since 1970.
        link: whose cable it was on.
        direction: inbound when the machine sent it.
        frame: its first bytes.
        length: of the whole frame.
    """

    at: int
    link: str
    direction: str
    frame: bytes
    length: int


class Capture:
    """A growing pcapng file.

    Args:
        path: of the file; it is made at once.
        limit: bytes of packets after which nothing more is recorded; the last one carries a note of it.

    Attributes:
        cut: frames that came after the limit.
    """

    def __init__(self, path: Path, *, limit: int = 64 << 20) -> None:
        self.path = path
        self.cut = 0
        self._limit = self._left = limit
        self._links = 0
        self._file = path.open("wb", buffering=1 << 18)
        # Byte order by the magic number, version 1.0, the section's length unknown.
        options = _option(4, b"Phase lab") + _option(0, b"")
        self._file.write(_block(_SECTION, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + options))

    def link(self, name: str) -> int:
        """A new interface; its number."""
        # if_name, and if_tsresol: nanoseconds.
        options = _option(2, name.encode()) + _option(9, b"\x09") + _option(0, b"")
        self._file.write(_block(_INTERFACE, struct.pack("<HHI", _ETHERNET, 0, KEPT) + options))
        self._links += 1
        return self._links - 1

    def add(self, link: int, direction: Direction, frame: bytes) -> None:
        """Record a frame, as of now."""
        if self._left <= 0:
            self.cut += 1
            return
        kept = frame[:KEPT]
        tail = _TAILS[direction]
        length = 44 + (len(kept) + 3 & ~3)
        self._left -= length
        if self._left <= 0:
            note = f"the capture ends here, at its limit of {self._limit} bytes; more frames passed"
            tail = _option(1, note.encode()) + tail
            length += len(tail) - 12
        now = time.time_ns()
        head = _HEAD.pack(_PACKET, length, link, now >> 32, now & 0xFFFFFFFF, len(kept), len(frame))
        self._file.write(head + kept + _PADDING[len(kept) & 3] + tail + length.to_bytes(4, "little"))

    def flushed(self) -> Path:
        """The file, with everything in it that was added."""
        self._file.flush()
        return self.path

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def read(path: Path) -> Iterator[Captured]:
    """The frames of a file that `Capture` wrote, oldest first."""
    links: list[str] = []
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            kind, length = struct.unpack("<II", head)
            body = file.read(length - 8)
            if len(body) < length - 8:
                # The switch that writes it has not got further yet.
                return
            if kind == _INTERFACE:
                size = struct.unpack_from("<H", body, 10)[0]
                links.append(body[12 : 12 + size].decode())
            elif kind == _PACKET:
                link, high, low, kept, whole = struct.unpack_from("<IIIII", body)
                # The flags are the last option, ahead of the end of options and the length.
                way = "inbound" if body[-12] & 3 == 1 else "outbound"
                yield Captured(high << 32 | low, links[link], way, body[20 : 20 + kept], whole)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + _PADDING[len(value) & 3]


def _block(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
