"""What passed on a segment, as a pcap file (draft-ietf-opsawg-pcap) that any network tool reads."""

import struct
import time
from pathlib import Path

#: Bytes kept of each frame: beyond the headers, a release's bytes would fill the disk.
KEPT = 256
_ETHERNET = 1
_HEADER = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")


class Capture:
    """A growing pcap file.

    Args:
        path: of the file; it is made at once.
        limit: bytes of frames after which nothing more is recorded.
    """

    def __init__(self, path: Path, *, limit: int = 64 << 20) -> None:
        self.path = path
        self._left = limit
        self._file = path.open("wb")
        # Byte order and microseconds by the magic number, version 2.4, time zone and accuracy unused.
        self._file.write(_HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, 65_535, _ETHERNET))

    def add(self, frame: bytes) -> None:
        """Record a frame, as of now."""
        kept = frame[:KEPT]
        self._left -= len(kept)
        if self._left >= 0:
            now = time.time()
            seconds = int(now)
            head = _RECORD.pack(seconds, int((now - seconds) * 1_000_000), len(kept), len(frame))
            self._file.write(head + kept)

    def flushed(self) -> Path:
        """The file, with everything in it that was added."""
        self._file.flush()
        return self.path

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
