"""What a machine gives to others, and what it refuses: over real sockets."""

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from phase.fetch import sharing
from phase.fetch.others import bit, bitmap_of
from phase.fetch.sharing import MAX_CONNECTIONS, MAX_PER_HOST, Question, Sharing, parse
from phase.fetch.transfer import Transfer
from tests.phase.fetch.hostile import CHUNK, describe

DATA = random.Random(5).randbytes(19 * CHUNK + 77)  # noqa: S311
ARTIFACT = describe(DATA)
PLACE = 4096


@pytest.fixture
def transfer(tmp_path: Path) -> Iterator[Transfer]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    made = Transfer(ARTIFACT, descriptor, PLACE, monotonic() + 60, None, None)
    # What is in the file and not verified must not get out.
    os.pwrite(descriptor, bytes(len(DATA)), PLACE)
    for index in (3, 4, 19):
        made.add(index, memoryview(DATA)[index * CHUNK : (index + 1) * CHUNK])
    yield made
    os.close(descriptor)


@pytest.fixture
def port(transfer: Transfer) -> Iterator[int]:
    shared = Sharing({ARTIFACT.sha256: transfer})
    yield shared.port
    shared.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def ask(port: int, text: str) -> tuple[bytes, bytes]:
    """Status line and body of one answer; both empty where the connection is closed without one."""
    with connect(port) as connection:
        connection.sendall(text.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while block := connection.recv(1 << 16):
            found += block
    head, _, body = found.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


def blob(first: int, last: int, digest: str = ARTIFACT.sha256) -> str:
    return f"GET /blobs/sha256/{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-{last}\r\n\r\n"


def test_verified_chunks_are_given(port: int) -> None:
    first, last = 3 * CHUNK, 5 * CHUNK - 1
    assert ask(port, blob(first, last)) == (b"HTTP/1.1 206 Partial Content", DATA[first : last + 1])
    first, last = 19 * CHUNK, len(DATA) - 1
    assert ask(port, blob(first, last))[1] == DATA[first:]


@pytest.mark.parametrize(
    "span",
    [
        (0, CHUNK - 1),
        (3 * CHUNK - 1, 4 * CHUNK),
        (4 * CHUNK, 5 * CHUNK),
        (19 * CHUNK, len(DATA)),
        (5, 4),
        (10**14, 10**14),
    ],
)
def test_what_is_not_verified_is_not_given(port: int, span: tuple[int, int]) -> None:
    assert ask(port, blob(*span)) == (b"HTTP/1.1 404 Not Found", b"")


def test_another_blob_is_not_here(port: int) -> None:
    assert ask(port, blob(0, 1, "0" * 64))[0] == b"HTTP/1.1 404 Not Found"


def test_the_bitmap_says_what_is_here(port: int, transfer: Transfer) -> None:
    status, body = ask(port, f"GET /have/sha256/{ARTIFACT.sha256} HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == b"HTTP/1.1 200 OK"
    assert len(body) == 3
    assert [index for index in range(24) if bit(body, index)] == [3, 4, 19]
    assert transfer.bitmap() == body


@pytest.mark.parametrize("flags", [b"", b"\1", b"\0" * 9, b"\1\0\1" * 7, b"\0" * 64 + b"\1"])
def test_a_bitmap_has_a_bit_for_each_flag(flags: bytes) -> None:
    bitmap = bitmap_of(flags)
    assert len(bitmap) == (len(flags) + 7) // 8
    assert [bit(bitmap, index) for index in range(len(flags))] == [bool(each) for each in flags]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\r\n\r\n",
        "POST /have/sha256/" + "0" * 64 + " HTTP/1.1\r\n\r\n",
        "GET /etc/passwd HTTP/1.1\r\n\r\n",
        "GET /blobs/sha256/" + "0" * 64 + " HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /blobs/sha256/" + "0" * 64 + " HTTP/1.1\r\nRange: bytes=0-1\r\nRange: bytes=0-2\r\n\r\n",
        "GET /blobs/sha256/" + "0" * 64 + " HTTP/1.1\r\nRange: bytes=0-\r\n\r\n",
        "GET /have/sha256/" + "0" * 64 + " HTTP/1.1\r\n" + "X: y\r\n" * 17 + "\r\n",
        "x" * 100_000,
        "\0" * 3000 + "\r\n\r\n",
    ],
)
def test_what_is_no_request_is_not_answered(port: int, text: str) -> None:
    with contextlib.suppress(OSError):  # it may be closed before all of it was read
        assert ask(port, text) == (b"", b"")


def test_one_host_gets_a_few_connections(port: int) -> None:
    """A thousand are closed at once; those that were there first are answered."""
    first = [connect(port) for _ in range(MAX_PER_HOST)]
    first[0].sendall(b"GET /have")  # both are being served when the others come
    for _ in range(200):
        with connect(port) as further:
            assert further.recv(1) == b""
    first[1].sendall(blob(3 * CHUNK, 3 * CHUNK).encode())
    assert first[1].recv(12) == b"HTTP/1.1 206"
    for each in first:
        each.close()


def test_all_hosts_together_get_a_few_connections(transfer: Transfer) -> None:
    shared = Sharing({ARTIFACT.sha256: transfer})
    there = []
    for number in range(MAX_CONNECTIONS):
        connection = socket.create_connection(
            ("127.0.0.1", shared.port), timeout=20, source_address=(f"127.0.0.{2 + number}", 0)
        )
        connection.sendall(blob(3 * CHUNK, 3 * CHUNK).encode())
        assert connection.recv(12) == b"HTTP/1.1 206"
        there.append(connection)
    with connect(shared.port) as further:
        assert further.recv(1) == b""
    shared.close()
    for each in there:
        each.close()


def test_who_says_nothing_is_not_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor who says one letter after the other."""
    monkeypatch.setattr(sharing, "HEAD_SECONDS", 0.2)
    with connect(port) as slow, connect(port) as silent:
        assert silent.recv(1) == b""
        with pytest.raises(ConnectionError):
            drip(slow)


def drip(connection: socket.socket) -> None:
    for _ in range(400):
        connection.sendall(b"G")
        sleep(0.05)


def test_who_does_not_read_is_not_kept(
    port: int, transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again."""
    monkeypatch.setattr(sharing, "BLOCK_SECONDS", 0.2)
    for index in range(len(ARTIFACT.chunks)):
        transfer.add(index, memoryview(DATA)[index * CHUNK : (index + 1) * CHUNK])
    lazy = []
    for _ in range(MAX_PER_HOST):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        # More than any buffer takes: the answer is never read.
        connection.sendall(blob(0, len(DATA) - 1).encode())
        lazy.append(connection)
    end = monotonic() + 30
    while ask_quietly(port) != b"HTTP/1.1 206 Partial Content":
        assert monotonic() < end
    for connection in lazy:
        connection.close()


def ask_quietly(port: int) -> bytes:
    try:
        return ask(port, blob(3 * CHUNK, 3 * CHUNK))[0]
    except OSError:
        return b""


def test_the_end_breaks_connections_off(transfer: Transfer) -> None:
    """Those who read turn to others at once."""
    shared = Sharing({ARTIFACT.sha256: transfer})
    with connect(shared.port) as connection:
        connection.sendall(blob(3 * CHUNK, 3 * CHUNK).encode())
        assert connection.recv(12) == b"HTTP/1.1 206"
        shared.close()
        while connection.recv(1 << 16):
            pass
    with pytest.raises(ConnectionError):
        connect(shared.port)


def test_no_packet_of_it_passes_a_router(port: int, transfer: Transfer) -> None:
    shared = Sharing({ARTIFACT.sha256: transfer})
    listener = shared._listener
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE)
    assert listener.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 1
    if listener.family == socket.AF_INET6:
        assert listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) == 1
    shared.close()


def test_a_visit_is_told(transfer: Transfer) -> None:
    told: list[bool] = []
    shared = Sharing({ARTIFACT.sha256: transfer}, lambda: told.append(True))
    ask(shared.port, blob(3 * CHUNK, 3 * CHUNK))
    shared.close()
    assert told == [True]


def test_requests_are_read() -> None:
    assert parse(blob(1, 2).encode()) == Question(ARTIFACT.sha256, 1, 2)
    head = f"GET /have/sha256/{ARTIFACT.sha256} HTTP/1.1\r\n\r\n"
    assert parse(head.encode()) == Question(ARTIFACT.sha256, None, 0)
