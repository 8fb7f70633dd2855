"""Providers that misbehave, over real sockets on loopback."""

import socket
import threading
from hashlib import sha256
from typing import NamedTuple

from fixtures.hostile.server import Answer, Asked, Server

__all__ = ["CHUNK", "Answer", "Artifact", "Asked", "Server", "describe", "evenly", "good", "raw"]

CHUNK = 1 << 16


class Artifact(NamedTuple):
    """As the manifest's, without its bounds on chunk size."""

    name: str
    length: int
    sha256: str
    starts: tuple[int, ...]
    chunks: tuple[str, ...]


def evenly(length: int, size: int) -> tuple[int, ...]:
    """Where chunks of one size start, and where the last one ends."""
    return (*range(0, length, size), length)


def describe(data: bytes) -> Artifact:
    """Sign, so to speak, some bytes."""
    chunks = tuple(sha256(data[i : i + CHUNK]).hexdigest() for i in range(0, len(data), CHUNK))
    return Artifact("rootfs", len(data), sha256(data).hexdigest(), evenly(len(data), CHUNK), chunks)


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
