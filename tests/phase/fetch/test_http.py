import socket
import threading
from time import monotonic
from typing import Any

import pytest

from phase.fetch import (
    NoSuchFileError,
    ProtocolError,
    ProviderFailedError,
    StalledError,
    UrlError,
    body,
    http,
)
from phase.fetch.http import Connection, parse_head, parse_url
from phase.fetch.reach import Segments
from tests.phase.fetch.hostile import Answer, Asked, Server, good, raw


def read(url: str, *, seconds: float = 5.0, first: int | None = None, last: int | None = None) -> bytes:
    connection = Connection(parse_url(url))
    try:
        answer = connection.get("/x", deadline=monotonic() + seconds, first=first, last=last)
        return answer.read(1 << 20)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "host", "port", "prefix", "authority"),
    [
        ("http://10.0.2.2:8080", "10.0.2.2", 8080, "", "10.0.2.2:8080"),
        ("http://boot.example", "boot.example", 80, "", "boot.example"),
        ("http://h:1/phase/", "h", 1, "/phase", "h:1"),
        ("http://[fd00::1]:90/", "fd00::1", 90, "", "[fd00::1]:90"),
        ("http://[::1]", "::1", 80, "", "[::1]"),
    ],
)
def test_addresses(text: str, host: str, port: int, prefix: str, authority: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, url.prefix, url.authority) == (host, port, prefix, authority)


@pytest.mark.parametrize(
    "text",
    [
        "https://h",
        "h:80",
        "http://",
        "http://h:0",
        "http://h:65536",
        "http://h:",
        "http://h:8x",
        "http://h:\uff11",
        "http://user@h",
        "http://h/a?b",
        "http://h/a#b",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://[::1",
        "http://[::1]x",
        "http://[h]:80",
        "http://" + "h" * 600,
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UrlError):
        parse_url(text)


def test_head() -> None:
    status, headers = parse_head(b'HTTP/1.1 206 Partial Content\r\nETag: "a:b"\r\nContent-Length:  5 ')
    assert status == 206
    assert headers == {"etag": '"a:b"', "content-length": "5"}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nX : y",
        b"HTTP/1.1 200 OK\r\n folded: y",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK" + b"\r\nA: b" * 65,
    ],
)
def test_what_is_no_head(head: bytes) -> None:
    with pytest.raises(ValueError, match="it "):
        parse_head(head)


def test_connection_is_kept_for_the_next_question() -> None:
    with Server(good(b"0123456789")) as server:
        connection = Connection(parse_url(server.url))
        for _ in range(3):
            assert connection.get("/x", deadline=monotonic() + 5).read(10) == b"0123456789"
        assert connection.get("/x", deadline=monotonic() + 5, first=2, last=4).read(10) == b"234"
        connection.close()
        assert server.connections == 1


def test_a_kept_connection_closed_meanwhile_is_opened_again() -> None:
    def once(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        good(b"abc")(asked, connection, stop)
        return False

    with Server(once) as server:
        connection = Connection(parse_url(server.url))
        assert [connection.get("/x", deadline=monotonic() + 5).read(9) for _ in range(2)] == [b"abc"] * 2
        connection.close()
        assert server.connections == 2


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (OK + b"Content-Length: 10\r\n\r\nshort", "5 of 10 bytes early"),
        (OK + b"\r\n" + b"x" * (1 << 20) + b"x", "more than 1048576 bytes"),
        (OK + b"Content-Length: -1\r\n\r\n", "its answer has '-1' bytes"),
        (OK + b"Content-Length: 1e3\r\n\r\n", "its answer has '1e3' bytes"),
        (OK + b"Content-Length:\r\n\r\n", "its answer has '' bytes"),
        (OK + b"Content-Length: " + b"9" * 6000 + b"\r\n\r\n", "its answer has '9999"),
        (OK + b"Content-Length: 99999999\r\n\r\n", "the limit is 1048576"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "'gzip, chunked'"),
        (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n", "too"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", "encoded"),
        (b"HTTP/1.1 302 Found\r\nLocation: /y\r\n\r\n", "redirects further and further"),
        (b"HTTP/1.1 302 Found\r\n\r\n", r"redirects \(302\) to nothing"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://a.example/\r\n\r\n", "not on the same server"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "answers 304"),
        (b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n", r"answers 500 to GET /x \(text/html\)"),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 9, "announces its answer more than 3 times"),
        (OK + b"X: y" * 10_000, "more than"),
        (OK + b"A: b\r\n" * 100 + b"\r\n", "more than 64"),
        (OK + b"Content-Le", "inside its headers"),
        (b"SSH-2.0-x\r\n\r\n", "does not speak HTTP"),
        (b"", "without an answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_that_are_refused(answer: bytes, message: str) -> None:
    with Server(raw(answer)) as server, pytest.raises(ProtocolError, match=message) as caught:
        read(server.url)
    assert caught.value.url == server.url


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 P\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 206 P\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 206 P\r\nContent-Length: 3\r\nContent-Range: bytes 1-3/9\r\n\r\nabc",
        b"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 2-4/9\r\n\r\nabcd",
        b"HTTP/1.1 416 R\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_part_must_be_the_part_asked_for(answer: bytes) -> None:
    with Server(raw(answer)) as server, pytest.raises(ProtocolError):
        read(server.url, first=2, last=4)


def test_endless_headers_are_cut_off() -> None:
    def endless(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(OK)
        while not stop.is_set():
            connection.sendall(b"X-Filler: " + b"y" * 1000 + b"\r\n")
        return False

    with Server(endless) as server, pytest.raises(ProtocolError, match="more than"):
        read(server.url)


def drip(head: bytes) -> Answer:
    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(head)
        while not stop.wait(0.02):
            connection.sendall(b"x")
        return False

    return answer


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", OK + b"Content-Length: 100000\r\n\r\n"])
def test_a_slow_drip_ends_at_the_deadline(head: bytes) -> None:
    began = monotonic()
    with Server(drip(head)) as server, pytest.raises(StalledError):
        read(server.url, seconds=0.4)
    assert monotonic() - began < 5


def test_a_whole_length_of_thousands_of_digits_is_no_length() -> None:
    head = b"HTTP/1.1 206 P\r\nContent-Length: 3\r\nContent-Range: bytes 2-4/" + b"9" * 6000 + b"\r\n\r\n"
    with Server(raw(head + b"abc")) as server:
        assert read(server.url, first=2, last=4) == b"abc"


def test_a_slow_drip_ends_long_before_a_far_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "WINDOW_SECONDS", 0.3)
    with (
        Server(drip(OK + b"Content-Length: 100000\r\n\r\n")) as server,
        pytest.raises(StalledError, match="less than 16384 bytes"),
    ):
        read(server.url, seconds=60)


def test_missing_file_keeps_the_connection() -> None:
    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope")
        return True

    with Server(answer) as server:
        connection = Connection(parse_url(server.url))
        for _ in range(2):
            with pytest.raises(NoSuchFileError):
                connection.get("/x", deadline=monotonic() + 5)
        connection.close()
        assert server.connections == 1


def test_small_path_mtu_is_found_by_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where long packets are lost without a word, no answer arrives; then short ones are asked for."""
    monkeypatch.setattr(http, "_segments", Segments())
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.05)
    lengths: list[int] = []

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        lengths.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        if lengths[-1] > 600:
            stop.wait(0.2)
            return False
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        return True

    with Server(answer) as server:
        for _ in range(2):
            with pytest.raises(StalledError, match="headers do not arrive"):
                read(server.url)
        assert read(server.url) == b"hello"
    assert lengths[0] > 1220 >= lengths[1] > 536 >= lengths[2]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ProviderFailedError, match="no connection"):
        read(f"http://127.0.0.1:{port}")


def test_a_silent_name_server_costs_no_more_than_a_silent_host(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    ask = socket.getaddrinfo

    def silent(*of: Any, **more: Any) -> Any:
        if more.get("flags", 0) & socket.AI_NUMERICHOST:
            return ask(*of, **more)
        over.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    started = monotonic()
    with pytest.raises(
        StalledError, match=r"http://boot\.example: no name server answers for boot\.example within"
    ):
        read("http://boot.example", seconds=0.5)
    assert monotonic() - started < 3
    over.set()


def test_a_name_is_looked_up() -> None:
    with Server(good(b"hello")) as server:
        assert read(server.url.replace("127.0.0.1", "localhost")) == b"hello"
    with pytest.raises(ProviderFailedError, match="no connection"):
        read(f"http://{'x' * 64}.example")
