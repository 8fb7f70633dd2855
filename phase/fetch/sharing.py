"""Gives other machines the verified chunks of what this one fetches. Small: threads and sockets.

Two requests are answered: `GET /have/sha256/HASH` with a bitmap of the chunks that are here, and
`GET /blobs/sha256/HASH` with a `Range` of verified chunks. Only machines on the same network reach it, since
its packets pass no router; it answers a few at a time, and closes a connection that says nothing.
"""

import re
import socket
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from threading import Lock, Thread
from time import monotonic, sleep
from typing import NamedTuple

from phase.fetch.transfer import Transfer
from phase.fetch.way import stay_near

#: Ports that a machine may share on. Below are those of services, which a hint must not make anybody ask.
LOWEST_PORT = 32_768
#: Limits for connections at the same time, and for those of one address.
MAX_CONNECTIONS, MAX_PER_HOST = 8, 2
MAX_HEAD = 2048
#: Seconds for a whole request, and for the reader to take a block of an answer.
HEAD_SECONDS, BLOCK_SECONDS = 5.0, 10.0
_BLOCK = 1 << 16
_PAUSE = 0.05
_REQUEST = re.compile(
    rb"GET /(have|blobs)/sha256/([0-9a-f]{64}) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z-]{1,40}: ?[\x20-\x7e]{0,256}\r\n){0,16})\r\n"
)
_RANGE = re.compile(rb"range: ?bytes=([0-9]{1,15})-([0-9]{1,15})", re.IGNORECASE)
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Question(NamedTuple):
    """A request.

    Attributes:
        digest: hash of the blob in hex.
        first: offset of the first byte wanted; None for the bitmap.
        last: offset of the last byte wanted.
    """

    digest: str
    first: int | None
    last: int


def parse(head: bytes) -> Question | None:
    """Read a request; None where it is not one of the two.

    Args:
        head: from anyone, at most `MAX_HEAD` bytes, with the empty line at its end.
    """
    found = _REQUEST.fullmatch(head)
    if found is None:
        return None
    what, digest, fields = found[1], found[2].decode(), found[3]
    if what == b"have":
        return Question(digest, None, 0)
    ranges = [each for each in map(_RANGE.fullmatch, fields.split(b"\r\n")) if each]
    return Question(digest, int(ranges[0][1]), int(ranges[0][2])) if len(ranges) == 1 else None


class Sharing:
    """Answers other machines until it is closed.

    Args:
        transfers: what this machine fetches and has fetched, by the hash of the whole.
        visited: is called when another machine has connected.

    Raises:
        OSError: no socket could be had.
    """

    def __init__(
        self, transfers: Mapping[str, Transfer], visited: Callable[[], None] = lambda: None
    ) -> None:
        self._transfers = transfers
        self._visited = visited
        self._lock = Lock()
        self._open: dict[socket.socket, str] = {}
        self._closed = False
        #: Bytes of chunks that were sent.
        self.sent = 0
        self._listener = _listen()
        self.port: int = self._listener.getsockname()[1]
        self._thread = Thread(target=self._accept, name="sharing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and break all connections off at once, so that who reads turns to others."""
        with self._lock:
            self._closed = True
            for each in (self._listener, *self._open):
                _shut(each)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, address = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                sleep(_PAUSE)  # it was gone before it was accepted, or this machine has too many files open
                continue
            if not self._admit(connection, str(address[0])):
                connection.close()
                continue
            self._visited()
            try:
                Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:
                self._dismiss(connection)  # no more threads: this one asks somebody else

    def _admit(self, connection: socket.socket, host: str) -> bool:
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS or Counter(self._open.values())[host] >= MAX_PER_HOST
            if self._closed or full:
                return False
            self._open[connection] = host
            return True

    def _dismiss(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)
        connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (head := _head(connection)) and (question := parse(head)):
                self._answer(connection, question)
        except OSError:
            pass  # it left, or is too slow
        finally:
            self._dismiss(connection)

    def _answer(self, connection: socket.socket, question: Question) -> None:
        transfer = self._transfers.get(question.digest)
        connection.settimeout(BLOCK_SECONDS)
        if transfer is None:
            connection.sendall(_MISSING)
        elif question.first is None:
            body = transfer.bitmap()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif not verified(transfer, question.first, question.last):
            connection.sendall(_MISSING)
        else:
            self._send(connection, transfer, question.first, question.last)

    def _send(self, connection: socket.socket, transfer: Transfer, first: int, last: int) -> None:
        length = last + 1 - first
        whole = transfer.artifact.length
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{whole}\r\n"
        connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        while length:
            block = transfer.peek(last + 1 - length, min(length, _BLOCK))
            if not block:
                raise OSError("the file has become shorter")
            connection.sendall(block)
            length -= len(block)
            with self._lock:
                self.sent += len(block)


def verified(transfer: Transfer, first: int, last: int) -> bool:
    """Whether all of a range is in chunks that are here."""
    starts = transfer.artifact.starts
    if not 0 <= first <= last < transfer.artifact.length:
        return False
    chunks = range(bisect_right(starts, first) - 1, bisect_left(starts, last + 1))
    return all(map(transfer.has, chunks))


def _listen() -> socket.socket:
    try:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        listener = socket.create_server(("", 0))  # a machine without IPv6
    try:
        stay_near(listener)
        if listener.getsockname()[1] < LOWEST_PORT:
            raise OSError("the ports of this machine are not those to share on")
    except BaseException:
        listener.close()
        raise
    return listener


def _head(connection: socket.socket) -> bytes:
    """One request; empty where it does not come in time, or another one with it."""
    head, end = b"", monotonic() + HEAD_SECONDS
    while not head.endswith(b"\r\n\r\n"):
        left = end - monotonic()
        if left <= 0 or len(head) > MAX_HEAD:
            return b""
        connection.settimeout(left)
        block = connection.recv(MAX_HEAD)
        if not block:
            return b""
        head += block
    return head if len(head) <= MAX_HEAD else b""


def _shut(endpoint: socket.socket) -> None:
    try:
        endpoint.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was gone already
