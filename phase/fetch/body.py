"""Reads the body of an HTTP answer: of a known length, in chunks, or until the connection ends.

In each of these forms, no more is read than was asked for, and a provider that is too slow is given up.

Source: RFC 9112, sections 6 and 7.
"""

import socket
from time import monotonic
from typing import Protocol

from phase.fetch.errors import ProtocolError, StalledError
from phase.fetch.url import Url

#: In each window of so many seconds, this many bytes of content must arrive; the last window may be shorter.
WINDOW_SECONDS = 10.0
WINDOW_BYTES = 16_384
#: Limit for a line of a chunked body, bytes: a size, an extension that is not read, or a trailer field.
MAX_LINE = 1024
MAX_TRAILERS = 16
#: Limit for chunks that are smaller than this many bytes on average: each chunk costs time.
MAX_SMALL_CHUNKS = 1000
SMALL_CHUNK = 256
_RECEIVE = 1 << 16
#: Limit for the hex digits of a chunk's size.
_SIZE_DIGITS = 13


class Source(Protocol):
    """A connection to read a body from; see `phase.fetch.http.Connection`."""

    url: Url
    #: Bytes that have arrived and were not read yet.
    buffer: bytearray

    def close(self) -> None:
        """Close it."""


class Response:
    """An answer whose body is still to be read.

    Args:
        source: the connection.
        stream: its socket.
        headers: of the answer; the length in them is valid.
        length: bytes of the body; None if it comes in chunks or ends with the connection.
        partial: whether it is the part of the file that was asked for, and not the whole file.
        total: length of the whole file, if the answer is a part and gives it.
        deadline: `time.monotonic()` when all of it must have arrived.
    """

    def __init__(
        self,
        source: Source,
        stream: socket.socket,
        headers: dict[str, str],
        *,
        length: int | None,
        partial: bool,
        total: int | None,
        deadline: float,
    ) -> None:
        self.length = length
        self.partial = partial
        self.total = total
        self.content_type = headers.get("content-type", "")[:80]
        self._source = source
        self._stream = stream
        self._chunked = length is None and "transfer-encoding" in headers
        self._until_close = length is None and not self._chunked
        #: Bytes left of the body, or of the chunk.
        self._left = length or 0
        self._chunks = self._content = 0
        self._over = False
        self._deadline = deadline
        connection = [word.strip() for word in headers.get("connection", "").lower().split(",")]
        self._keep = "close" not in connection and not self._until_close
        self._window_end = monotonic() + WINDOW_SECONDS
        self._window_bytes = WINDOW_BYTES
        # One short timeout for every receive: setting it each time would double the system calls.
        stream.settimeout(max(min(1.0, deadline - monotonic()), 0.001))
        if length == 0:
            self._end()

    def read_into(self, target: memoryview) -> None:
        """Fill `target` from the body.

        Raises:
            ProviderFailedError: the body ends early or does not arrive; the connection is closed.
        """
        filled = 0
        while filled < len(target):
            got = self._some(target[filled:])
            if not got:
                self._source.close()
                raise self._problem(f"it ended its answer {len(target) - filled} bytes early")
            filled += got

    def read(self, max_bytes: int) -> bytes:
        """Read the body to its end.

        Raises:
            ProtocolError: it is longer than `max_bytes`.
            ProviderFailedError: it does not arrive.
        """
        if self.length is not None and self.length > max_bytes:
            self._source.close()
            raise self._problem(f"its answer has {self.length} bytes; the limit is {max_bytes}")
        if self.length is not None:
            body = bytearray(self.length)
            self.read_into(memoryview(body))
            return bytes(body)
        body = bytearray()
        block = memoryview(bytearray(min(_RECEIVE, max_bytes + 1)))
        while got := self._some(block):
            body += block[:got]
            if len(body) > max_bytes:
                self._source.close()
                raise self._problem(f"its answer has more than {max_bytes} bytes")
        return bytes(body)

    def finish(self) -> None:
        """End after the wanted bytes: keep the connection if the body is at its end, otherwise close it."""
        if self._over:
            return
        if self._chunked and not self._left:
            try:
                # The end of a chunked body has mostly arrived already; do not wait for it.
                self._deadline = min(self._deadline, monotonic() + 1.0)
                self._some(memoryview(bytearray(1)))
            except (ProtocolError, StalledError):
                return
        if not self._over:
            self._source.close()

    def _some(self, target: memoryview) -> int:
        """Read at least one byte; 0 at the end of the body."""
        try:
            if self._chunked and not self._left and not self._over:
                self._next_chunk()
            if self._over:
                return 0
            wanted = len(target) if self._until_close else min(len(target), self._left)
            buffer = self._source.buffer
            got = min(len(buffer), wanted)
            if got:
                target[:got] = buffer[:got]
                del buffer[:got]
            else:
                got = self._receive(target[:wanted])
            self._window_bytes -= got
            self._content += got
            if not got and not self._until_close:
                raise self._problem(self._early())
        except BaseException:
            self._source.close()
            raise
        if not got:
            self._end()
        elif not self._until_close:
            self._left -= got
            if not self._left and not self._chunked:
                self._end()
        return got

    def _early(self) -> str:
        if self._chunked:
            return f"it ended its answer {self._left} bytes before the end of a chunk"
        return f"it ended its answer {self._left} of {self.length} bytes early"

    def _receive(self, target: memoryview) -> int:
        """Bytes from the connection, waited for; 0 at its end."""
        while True:
            try:
                got = self._stream.recv_into(target)
            except TimeoutError:
                self._watch()
                continue
            except OSError as error:
                raise self._problem(f"the connection broke: {error.strerror or error}") from error
            self._watch()
            return got

    def _watch(self) -> None:
        """Give up a provider that is too slow."""
        now = monotonic()
        if now >= self._deadline:
            raise StalledError(self._source.url.text, "the time was up before its answer was complete")
        if now < self._window_end:
            return
        # Bytes that only frame the content do not count.
        if self._window_bytes > 0:
            raise StalledError(
                self._source.url.text, f"it sends less than {WINDOW_BYTES} bytes in {WINDOW_SECONDS:.0f} s"
            )
        self._window_end, self._window_bytes = now + WINDOW_SECONDS, WINDOW_BYTES

    def _next_chunk(self) -> None:
        """Read up to the first byte of the next chunk's data, or to the end of the body."""
        if self._chunks and self._line():
            raise self._problem("a chunk of its answer is longer than it says")
        digits = self._line().partition(b";")[0].strip(b" \t")
        if not 0 < len(digits) <= _SIZE_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
            raise self._problem(f"it gives {digits[:20]!r} as the size of a chunk")
        self._left = int(digits, 16)
        self._chunks += 1
        if self._left:
            if self._chunks > MAX_SMALL_CHUNKS and self._content < self._chunks * SMALL_CHUNK:
                raise self._problem(
                    f"it sends its answer in {self._chunks} chunks of {SMALL_CHUNK} bytes or less"
                )
            return
        for _ in range(MAX_TRAILERS + 1):
            if not self._line():
                self._end()
                return
        raise self._problem(f"it sends more than {MAX_TRAILERS} trailer fields")

    def _line(self) -> bytes:
        buffer = self._source.buffer
        while (end := buffer.find(b"\r\n", 0, MAX_LINE)) < 0:
            if len(buffer) >= MAX_LINE:
                raise self._problem(f"a line between its chunks has more than {MAX_LINE} bytes")
            block = memoryview(bytearray(MAX_LINE))
            got = self._receive(block)
            if not got:
                raise self._problem("it ended its answer between two chunks")
            buffer += block[:got]
        line = bytes(buffer[:end])
        del buffer[: end + 2]
        return line

    def _end(self) -> None:
        self._over = True
        # Bytes after the end belong to no request; such a connection must not be used again.
        if not self._keep or self._source.buffer:
            self._source.close()

    def _problem(self, what: str) -> ProtocolError:
        return ProtocolError(self._source.url.text, what)
