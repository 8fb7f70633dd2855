"""Sends a head and a part of a file: `sendfile` whenever the socket takes more.

asyncio's own `loop.sendfile` makes a future and registers the socket anew for every piece, and its head is
a packet of its own.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from phase.provider import blobs

#: Bytes for one connection in one turn of the event loop.
TURN = 2 << 20


class Sending:
    """One answer on its way.

    Args:
        connection: the socket; nothing else may be written to it before the end.
        head: sent first.
        descriptor: of the file.
        first: where the part begins, bytes.
        length: of the part, bytes.
        done: called once: whether all of it was sent. If not, the connection must be cut off.
    """

    def __init__(
        self,
        connection: socket.socket,
        head: bytes,
        descriptor: int,
        first: int,
        length: int,
        done: Callable[[bool], None],
    ) -> None:
        self._socket = connection
        self._head = head
        self._descriptor = descriptor
        self._offset = first
        self._left = length
        self._done = done
        #: The socket under another number: asyncio keeps its own for the transport.
        self._waiting: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        self._end = now + blobs.ANSWER_SECONDS + length / blobs.MIN_RATE
        self._slice_end = now + blobs.SLICE_SECONDS
        #: How much is left at the end of this slice.
        self._slice_left = length - blobs.SLICE

    def start(self) -> None:
        """Send what the socket takes, and the rest later."""
        try:
            self._send()
            if self._left:
                self._wait()
                return
        except OSError:
            self._finish(whole=False)
        else:
            self._finish(whole=True)

    def stop(self) -> None:
        """Send no more. Does not call `done`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting is not None:
            self._loop.remove_writer(self._waiting.fileno())
            self._waiting.close()
            self._waiting = None

    def _send(self) -> None:
        """Send what the socket takes.

        Raises:
            OSError: the reader has left, or the file has become shorter.
        """
        try:
            if self._head:
                # The kernel puts the first bytes of the file into the same packet.
                self._head = self._head[self._socket.send(self._head, socket.MSG_MORE) :]
            if self._head:
                return
            sent = os.sendfile(self._socket.fileno(), self._descriptor, self._offset, min(self._left, TURN))
        except (BlockingIOError, InterruptedError):
            return
        if not sent:
            # The length is promised, so only closing is honest.
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        self._offset += sent
        self._left -= sent
        if self._left <= self._slice_left:
            self._slice_left = self._left - blobs.SLICE
            self._slice_end = self._loop.time() + blobs.SLICE_SECONDS

    def _wait(self) -> None:
        self._waiting = self._socket.dup()
        self._loop.add_writer(self._waiting.fileno(), self._go_on)
        self._timer = self._loop.call_at(min(self._slice_end, self._end), self._ring)

    def _go_on(self) -> None:
        try:
            self._send()
        except OSError:
            self._finish(whole=False)
            return
        if not self._left:
            self._finish(whole=True)

    def _ring(self) -> None:
        until = min(self._slice_end, self._end)
        if self._loop.time() >= until:
            self._finish(whole=False)
        else:
            self._timer = self._loop.call_at(until, self._ring)

    def _finish(self, *, whole: bool) -> None:
        self.stop()
        self._done(whole)
