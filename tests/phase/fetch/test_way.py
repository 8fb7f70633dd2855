"""Through a proxy, or not at all."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from fixtures.hostile.server import Server
from fixtures.socks import Socks
from phase.fetch import Client, ExhaustedError
from phase.fetch.way import DIRECT, Way, WayError, through
from tests.phase.fetch.hostile import good

Script = Callable[[socket.socket], None]


def ask(url: str, way: Way) -> bytes:
    with Client([url], timeout=10) as client:
        client.close()
    with Client([url], timeout=10, way=way) as client:
        return client.get("/x", 1000)


def test_everything_goes_through_the_proxy() -> None:
    with Server(good(b"content")) as server, Socks() as proxy:
        assert ask(server.url, DIRECT._replace(proxy=proxy.address)) == b"content"
        assert len(proxy.asked) == 1


def test_a_name_is_left_to_the_proxy() -> None:
    with Server(good(b"content")) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with Socks(names={"x.onion": (host, int(port))}) as proxy:
            assert ask("http://x.onion", DIRECT._replace(proxy=proxy.address)) == b"content"
            assert proxy.asked == [("x.onion", 80)]


def test_a_dead_proxy_is_no_reason_to_go_without() -> None:
    told = r"Tor's proxy 127\.0\.0\.1:9: Connection refused\. Does Tor run there"
    with Server(good(b"content")) as server, pytest.raises(ExhaustedError, match=told):
        ask(server.url, DIRECT._replace(proxy=("127.0.0.1", 9)))


def test_a_refusal_is_one_for_every_provider() -> None:
    with (
        Server(good(b"content")) as server,
        pytest.raises(ExhaustedError, match=r"not today\. Ask tomorrow"),
    ):
        ask(server.url, DIRECT._replace(refusal="not today", hint="Ask tomorrow."))


def test_a_lonely_machine_says_what_is_beyond_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(
        ExhaustedError, match=r"192\.0\.2\.9 is beyond this network, where local mode sends no"
    ):
        ask("http://192.0.2.9", DIRECT._replace(lonely="local"))


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not speak SOCKS 5"),
        ([b"\x05\xff"], "wants a password"),
        ([b"\x05\x00", b"\x04\x00\x00\x01" + bytes(6)], "does not speak SOCKS 5"),
        ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "the connection was refused"),
        ([b"\x05\x00", b"\x05\x63\x00\x01" + bytes(6)], "it answers 99"),
        ([b"\x05\x00", b"\x05\x00\x00\x03\x09short"], "it closed the connection"),
        ([b"\x05"], "it closed the connection"),
    ],
)
def test_a_proxy_that_is_none(answers: list[bytes], says: str) -> None:
    here, there = socket.socketpair()

    def answer() -> None:
        with there:
            for each in answers:
                there.recv(1000)
                there.sendall(each)

    threading.Thread(target=answer, daemon=True).start()
    with here, pytest.raises(WayError, match=says):
        through(here, "192.0.2.1", 80, time.monotonic() + 10)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "a" * 256])
def test_what_no_proxy_can_reach(host: str) -> None:
    here, there = socket.socketpair()
    there.sendall(b"\x05\x00")
    with here, there, pytest.raises(WayError):
        through(here, host, 80, time.monotonic() + 10)
