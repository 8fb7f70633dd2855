"""Bodies however they are framed, and frames that are made to hurt."""

import socket
import threading
from collections.abc import Iterable
from time import monotonic, process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase.fetch import ProtocolError, ProviderFailedError, StalledError, body, http
from phase.fetch.http import Connection, parse_url
from tests.phase.fetch.hostile import Answer, Asked, Server, raw

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def answered(text: bytes, *, limit: int = 1 << 20, seconds: float = 5.0) -> bytes:
    """What is read of an answer, over a socket pair; the other end is closed behind it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=_send, args=(theirs, text))
        sender.start()
        connection = Connection(parse_url("http://192.0.2.1:1"))
        connection._socket = ours
        try:
            return connection.get("/x", deadline=monotonic() + seconds).read(limit)
        finally:
            ours.close()
            sender.join(10)


def _send(theirs: socket.socket, text: bytes) -> None:
    try:
        theirs.sendall(text)
        theirs.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the reader had enough


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=20))
@settings(max_examples=40, deadline=None)
def test_chunks_are_put_together(parts: list[bytes]) -> None:
    assert answered(HEAD + chunked(parts)) == b"".join(parts)


@pytest.mark.parametrize(
    "text",
    [
        b"5;name=value\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"0005\r\nhello\r\n00\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
        b"3\r\nhel\r\n2;" + b"x" * 1000 + b"\r\nlo\r\n0\r\n\r\n",
    ],
)
def test_extensions_and_trailers_are_read_over(text: bytes) -> None:
    assert answered(HEAD + text) == b"hello"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "between two chunks"),
        (b"5\r\nhel", "2 bytes before the end of a chunk"),
        (b"5\r\nhello", "between two chunks"),
        (b"5\r\nhello0\r\n\r\n", "longer than it says"),
        (b"5\r\nhello\r\n", "between two chunks"),
        (b"5\r\nhello\r\n0\r\n", "between two chunks"),
        (b"-5\r\nhello\r\n0\r\n\r\n", "as the size of a chunk"),
        (b"+5\r\nhello\r\n0\r\n\r\n", "as the size of a chunk"),
        (b"0x5\r\nhello\r\n0\r\n\r\n", "as the size of a chunk"),
        (b"5_0\r\nhello\r\n0\r\n\r\n", "as the size of a chunk"),
        (b"\r\nhello\r\n0\r\n\r\n", "as the size of a chunk"),
        (b"f" * 14 + b"\r\n", "as the size of a chunk"),
        (b"9" * 6000 + b"\r\n", "more than 1024 bytes"),
        (b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n", "more than 1024 bytes"),
        (b"5\nhello\n0\n\n" + b"x" * 2000, "more than 1024 bytes"),
        (b"0\r\n" + b"X: y\r\n" * 17 + b"\r\n", "more than 16 trailer"),
        (b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n", "more than 1048576 bytes"),
        (b"f" * 13 + b"\r\n" + b"x" * (1 << 20) + b"x", "more than 1048576 bytes"),
    ],
)
def test_chunks_that_are_refused(text: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        answered(HEAD + text)


def test_many_tiny_chunks_are_refused_before_they_cost_much() -> None:
    small = b"".join(b"1\r\nx\r\n" for _ in range(300_000))
    began = process_time()
    with pytest.raises(ProtocolError, match="1001 chunks of 256 bytes or less"):
        answered(HEAD + small)
    assert process_time() - began < 1
    assert answered(HEAD + chunked([b"x"] * 1000)) == b"x" * 1000


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200\r\n\r\n",
    ],
)
def test_an_answer_without_a_length_ends_with_the_connection(head: bytes) -> None:
    assert answered(head + b"hello", limit=5) == b"hello"
    assert answered(head) == b""
    with pytest.raises(ProtocolError, match="more than 4 bytes"):
        answered(head + b"hello", limit=4)


def ask(server: Server, times: int) -> list[bytes]:
    connection = Connection(parse_url(server.url))
    try:
        return [connection.get("/x", deadline=monotonic() + 5).read(99) for _ in range(times)]
    finally:
        connection.close()


def keeps(text: bytes) -> Answer:
    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(text)
        return True

    return answer


@pytest.mark.parametrize(
    ("text", "connections"),
    [
        (HEAD + chunked([b"abc"]), 1),
        (HEAD + chunked([b"abc"]) + b"HTTP/1.1 200 OK", 3),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 3\r\n\r\nabc", 3),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 3),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 1),
    ],
)
def test_a_connection_is_kept_where_its_answer_has_an_end(text: bytes, connections: int) -> None:
    with Server(keeps(text)) as server:
        assert ask(server, 3) == [b"abc"] * 3
        assert server.connections == connections


def test_a_part_may_come_in_chunks() -> None:
    head = b"HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/9\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Server(raw(head + chunked([b"c", b"de"]))) as server:
        connection = Connection(parse_url(server.url))
        answer = connection.get("/x", deadline=monotonic() + 5, first=2, last=4)
        assert (answer.partial, answer.total, answer.length) == (True, 9, None)
        target = bytearray(3)
        answer.read_into(memoryview(target))
        answer.finish()
        connection.close()
    assert target == b"cde"


def test_the_whole_may_come_where_a_part_was_asked_for() -> None:
    with Server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcdefghi")) as server:
        connection = Connection(parse_url(server.url))
        answer = connection.get("/x", deadline=monotonic() + 5, first=2, last=4)
        assert (answer.partial, answer.read(9)) == (False, b"abcdefghi")
        connection.close()


@pytest.mark.parametrize("drop", [b"1\r\n", b"1;", b"1\r\nx\r\n"])
def test_dripping_frames_are_not_content(monkeypatch: pytest.MonkeyPatch, drop: bytes) -> None:
    """However many bytes frame it: too little content in too much time is too little."""
    monkeypatch.setattr(body, "WINDOW_SECONDS", 0.3)

    def drip(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(HEAD + b"1;" + b"x" * 500)
        while not stop.wait(0.05):
            connection.sendall(drop)
        return False

    with Server(drip) as server, pytest.raises(ProviderFailedError):
        ask(server, 1)


def test_a_chunked_answer_ends_at_the_deadline() -> None:
    def stuck(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(HEAD + b"5\r\nhe")
        stop.wait(30)
        return False

    began = monotonic()
    with Server(stuck) as server, pytest.raises(StalledError, match="the time was up"):
        Connection(parse_url(server.url)).get("/x", deadline=monotonic() + 0.3).read(99)
    assert monotonic() - began < 5


@pytest.mark.parametrize("host", ["/y", "http://HERE/y", "http://here/y?a=b"])
def test_a_redirect_on_the_same_server_is_followed(host: str) -> None:
    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path == "/x":
            where = host.replace("HERE", server.url[7:]).replace("here", server.url[7:])
            connection.sendall(
                f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
            )
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        return True

    with Server(answer) as server:
        assert ask(server, 2) == [b"abc", b"abc"]
        assert server.connections == 1
        assert server.asked[1].path.startswith("/y")


@pytest.mark.parametrize(
    "where",
    ["//other/y", "http://other/y", "https://127.0.0.1/y", "y", "/y\tx", "/y#z", "/é", "/" + "y" * 2000, ""],
)
def test_a_redirect_to_elsewhere_is_not_followed(where: str) -> None:
    head = f"HTTP/1.1 301 Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    with (
        Server(raw(head)) as server,
        pytest.raises(ProtocolError, match=r"it redirects \(301\) to") as caught,
    ):
        ask(server, 1)
    assert len(server.asked) == 1
    assert str(caught.value).isprintable()


def test_every_address_of_a_name_gets_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first swallows every packet, as a firewall does; the second one is there."""
    with Server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")) as server, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = int(server.url.rpartition(":")[2])
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, full.getsockname()), (*kind, ("127.0.0.1", port))]
        monkeypatch.setattr(http, "_resolve", lambda *_, **__: found)
        connection = Connection(parse_url("http://boot.example"))
        assert connection.get("/x", deadline=monotonic() + 2).read(9) == b"abc"
        connection.close()
        for one in waiting:
            one.close()
