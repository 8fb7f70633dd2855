"""Providers that misbehave, over real sockets on loopback."""

import contextlib
import socket
import threading
from collections.abc import Callable
from hashlib import sha256
from types import TracebackType
from typing import NamedTuple, Self

CHUNK = 1 << 16


class Artifact(NamedTuple):
    """As the manifest's, without its bounds on chunk size."""

    name: str
    length: int
    sha256: str
    chunk_size: int
    chunks: tuple[str, ...]


def describe(data: bytes) -> Artifact:
    """Sign, so to speak, some bytes."""
    chunks = tuple(sha256(data[i : i + CHUNK]).hexdigest() for i in range(0, len(data), CHUNK))
    return Artifact("rootfs", len(data), sha256(data).hexdigest(), CHUNK, chunks)


class Asked(NamedTuple):
    """One request as it arrived."""

    path: str
    #: First and last byte, where a range was asked for.
    span: tuple[int, int] | None


Answer = Callable[[Asked, socket.socket, threading.Event], bool]
"""Answers one request; false when the connection is to be closed."""


class Server:
    """Answers every request on every connection as it is told."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked: list[Asked] = []
        self.connections = 0
        self.stop = threading.Event()
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            reader = connection.makefile("rb")
            with reader:
                while line := reader.readline():
                    path, span = line.split()[1].decode(), None
                    while (field := reader.readline().strip()) != b"":
                        if field.lower().startswith(b"range: bytes="):
                            first, _, last = field.partition(b"=")[2].partition(b"-")
                            span = (int(first), int(last))
                    asked = Asked(path, span)
                    self.asked.append(asked)
                    if not self._answer(asked, connection, self.stop):
                        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


def good(data: bytes) -> Answer:
    """What an honest provider does."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.span is None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        else:
            first, last = asked.span
            part = data[first : last + 1]
            head = "HTTP/1.1 206 Partial Content\r\n"
            head += f"Content-Range: bytes {first}-{last}/{len(data)}\r\nContent-Length: {len(part)}\r\n\r\n"
            connection.sendall(head.encode() + part)
        return True

    return answer


def raw(text: bytes) -> Answer:
    """Say exactly this to everything, then close."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(text)
        return False

    return answer
