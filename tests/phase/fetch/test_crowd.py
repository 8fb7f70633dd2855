"""Machines that fetch the same at once, from a real provider and from each other."""

import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep

import pytest

from phase.fetch import FetchReport, ProviderFailedError, fetch_artifact, others
from phase.fetch import crowd as crowds
from phase.fetch.crowd import MAX_TOLD, Crowd, read_peers
from phase.fetch.http import Connection, parse_url
from phase.fetch.others import Others, bit
from tests.phase.fetch.hostile import CHUNK, Answer, Asked, Server, describe

DATA = random.Random(11).randbytes(250 * CHUNK + 777)  # noqa: S311
ARTIFACT = describe(DATA)
BLOB = f"/blobs/sha256/{ARTIFACT.sha256}"


def say(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)) + body


class Meeting:
    """A provider that names machines to each other, as `phase serve` does, and brings each chunk slowly.

    Attributes:
        sent: bytes of the artifact that it has sent.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.sent = 0
        self.ports: list[str] = []
        self._lock = threading.Lock()
        self._seconds = seconds

    def __call__(self, asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/peers/"):
            return self._peers(asked, connection)
        first, last = asked.span or (0, len(DATA) - 1)
        status = "206 Partial Content" if asked.span else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n"
        connection.sendall(f"{head}Content-Length: {last + 1 - first}\r\n\r\n".encode())
        for start in range(first, last + 1, CHUNK):
            with self._lock:  # one link for all
                sleep(self._seconds)
            part = DATA[start : min(start + CHUNK, last + 1)]
            connection.sendall(part)
            self.sent += len(part)
        return True

    def _peers(self, asked: Asked, connection: socket.socket) -> bool:
        port = asked.path.partition("?port=")[2]
        with self._lock:
            others = [f"127.0.0.1:{each}\n" for each in self.ports if each != port]
            self.ports = list(dict.fromkeys([*self.ports, port]))
        connection.sendall(say(f"{len(others) + 1}\n{''.join(others)}".encode()))
        return True


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def sharing(url: str, banned: set[str] | None = None) -> Iterator[Crowd]:
    made = Crowd([url], ARTIFACT.sha256, banned if banned is not None else set())
    made.start()
    try:
        yield made
    finally:
        made.close()


def fetch(url: str, out: int, crowd: Crowd, seconds: float = 60) -> FetchReport:
    return fetch_artifact(ARTIFACT, [url], out, deadline=monotonic() + seconds, crowd=crowd)


@contextlib.contextmanager
def peer(answer: Answer) -> Iterator[Server]:
    """A machine that shares, on a port that is allowed, and answers as it is told."""
    with Server(answer) as server:
        assert int(server.url.rpartition(":")[2]) >= 32_768
        yield server


def with_peer(server: Server, seconds: float = 0.0) -> Meeting:
    """A provider that names this machine."""
    meeting = Meeting(seconds)
    meeting.ports = [server.url.rpartition(":")[2]]
    return meeting


def has_all(chunks: bytes | None) -> Answer:
    """A machine that says it has every chunk, and sends these bytes for each; None for nothing at all."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/have/"):
            connection.sendall(say(b"\xff" * ((len(ARTIFACT.chunks) + 7) // 8)))
            return True
        if chunks is None or asked.span is None:
            stop.wait(60)
            return False
        first, last = asked.span
        part = (chunks * 2)[first : last + 1]
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n"
        connection.sendall(f"{head}Content-Length: {len(part)}\r\n\r\n".encode() + part)
        return True

    return answer


def test_a_crowd_takes_the_artifact_from_each_other(tmp_path: Path) -> None:
    """Six machines at once; the provider sends less than half of six copies, and each has all of it."""
    meeting = Meeting(0.02)
    count = 6
    done = threading.Barrier(count, timeout=60)

    def machine(number: int) -> FetchReport:
        with open(tmp_path / str(number), "w+b") as file, sharing(server.url) as own:
            report = fetch(server.url, file.fileno(), own)
            done.wait()  # nobody leaves early: what is counted does not depend on who is quicker
            assert (tmp_path / str(number)).read_bytes() == DATA
            return report

    with Server(meeting) as server, ThreadPoolExecutor(count) as threads:
        reports = list(threads.map(machine, range(count)))
    assert meeting.sent < count / 2 * len(DATA)
    assert all(sum(report.sources.values()) == len(DATA) for report in reports)


def test_one_that_boots_alone_asks_once_and_fetches_as_before(out: int) -> None:
    meeting = Meeting()
    with Server(meeting) as server, sharing(server.url) as own:
        report = fetch(server.url, out, own)
        assert report.sources == {server.url: len(DATA)}
        port = meeting.ports[0]
        assert server.asked == [
            Asked(f"/peers/sha256/{ARTIFACT.sha256}?port={port}", None),
            Asked(BLOB, None),
        ]


def test_a_plain_web_server_is_asked_once(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "AGAIN_SECONDS", (0.01, 0.01))
    whole = Meeting(0.002)

    def plain(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/peers/"):
            connection.sendall(say(b"", "404 Not Found"))
            return True
        return whole(asked, connection, stop)

    with Server(plain) as server, sharing(server.url) as own:
        assert fetch(server.url, out, own).sources == {server.url: len(DATA)}
        assert [each.path for each in server.asked if each.path != BLOB] == [server.asked[0].path]


def test_what_others_have_is_not_asked_of_the_provider(out: int) -> None:
    with peer(has_all(DATA)) as other, Server(with_peer(other, 0.02)) as server, sharing(server.url) as own:
        report = fetch(server.url, out, own)
    assert os.pread(out, len(DATA), 0) == DATA
    assert report.sources[other.url] > len(DATA) * 0.8


def test_one_that_lies_is_asked_no_more(out: int) -> None:
    banned: set[str] = set()
    wrong = bytes(len(DATA))
    with (
        peer(has_all(wrong)) as liar,
        Server(with_peer(liar, 0.002)) as server,
        sharing(server.url, banned) as own,
    ):
        report = fetch(server.url, out, own)
        asked = len(liar.asked)
        assert fetch(server.url, out, own).sources == {server.url: len(DATA)}
    assert report.sources == {server.url: len(DATA)}
    assert os.pread(out, len(DATA), 0) == DATA
    assert banned == {"127.0.0.1"}
    assert len(liar.asked) == asked


def test_one_that_promises_all_and_sends_nothing_holds_nobody_up(out: int) -> None:
    """The provider is asked for all of it, long before the silent one is given up."""
    with peer(has_all(None)) as silent, Server(with_peer(silent)) as server, sharing(server.url) as own:
        report = fetch(server.url, out, own, seconds=9)
    assert report.sources == {server.url: len(DATA)}


@pytest.mark.parametrize(
    "said",
    [say(b""), say(b"\xff" * 9000), b"HTTP/1.1 200 OK\r\n\r\n" + b"\xff" * 9000, b"\0" * 20_000],
    ids=["empty", "long", "endless", "zeros"],
)
def test_a_bitmap_of_another_size_is_not_one(out: int, said: bytes) -> None:
    """Such a machine is asked for no chunk, though it would send the right ones."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.span is not None:
            return has_all(DATA)(asked, connection, stop)
        connection.sendall(said)
        return said.startswith(b"HTTP/1.1 200 OK\r\nContent-Length")

    with peer(answer) as other, Server(with_peer(other, 0.002)) as server, sharing(server.url) as own:
        assert fetch(server.url, out, own).sources == {server.url: len(DATA)}


def test_one_that_leaves_takes_nothing_with_it(out: int) -> None:
    """It breaks off in the middle of a chunk, as one that starts its next kernel does."""

    def leaves(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/have/"):
            return has_all(DATA)(asked, connection, stop)
        assert asked.span is not None
        first, last = asked.span
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len(DATA)}\r\n"
        connection.sendall(
            f"{head}Content-Length: {last + 1 - first}\r\n\r\n".encode() + DATA[first : first + 99]
        )
        return False

    with peer(leaves) as other, Server(with_peer(other, 0.002)) as server, sharing(server.url) as own:
        report = fetch(server.url, out, own)
    assert report.sources == {server.url: len(DATA)}
    assert os.pread(out, len(DATA), 0) == DATA


def test_long_chunks_are_taken_from_fewer(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine that is asked needs memory for a chunk."""
    monkeypatch.setattr(crowds, "MAX_BUFFERS", 2 * CHUNK - 1)
    with peer(has_all(DATA)) as one, peer(has_all(DATA)) as two:
        meeting = with_peer(one, 0.002)
        meeting.ports += with_peer(two).ports
        with Server(meeting) as server, sharing(server.url) as own:
            report = fetch(server.url, out, own)
    assert one.url in report.sources
    assert two.asked == []


def test_where_the_provider_is_gone_others_finish_it(out: int) -> None:
    """It names one that has all, and ends."""
    names = threading.Event()

    def gone(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/peers/"):
            connection.sendall(say(b"2\n" + other.url.removeprefix("http://").encode()))
            names.set()
            return True
        return False

    with peer(has_all(DATA)) as other, Server(gone) as server, sharing(server.url) as own:
        report = fetch(server.url, out, own)
    assert names.is_set()
    assert report.sources == {other.url: len(DATA)}


def test_a_provider_that_names_thousands_is_believed_a_few(out: int) -> None:
    lines = b"10000\n" + b"".join(b"127.0.0.1:%d\n" % port for port in range(40_000, 50_000))
    whole = Meeting()

    def many(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/peers/"):
            connection.sendall(say(lines))
            return False
        return whole(asked, connection, stop)

    assert len(read_peers(lines, "127.0.0.1").urls) == MAX_TOLD
    with Server(many) as server, sharing(server.url) as own:
        assert own._known.urls == []
        assert fetch(server.url, out, own).sources == {server.url: len(DATA)}


@pytest.mark.parametrize(
    ("line", "provider", "url"),
    [
        ("192.0.2.7:40000", "192.0.2.1", "http://192.0.2.7:40000"),
        ("[2001:db8::7]:40000", "192.0.2.1", "http://[2001:db8::7]:40000"),
        ("[fe80::7]:40000", "fe80::1%eth0", "http://[fe80::7%25eth0]:40000"),
        ("127.0.0.1:40000", "127.0.0.1", "http://127.0.0.1:40000"),
        # A link-local address without a link, and this machine itself.
        ("[fe80::7]:40000", "192.0.2.1", ""),
        ("127.0.0.1:40000", "192.0.2.1", ""),
        ("[::1]:40000", "provider.example", ""),
        # Ports of services: a hint must not make anybody talk to a printer.
        ("192.0.2.7:9100", "192.0.2.1", ""),
        ("192.0.2.7:080000", "192.0.2.1", ""),
        ("192.0.2.7:99999", "192.0.2.1", ""),
        ("192.0.2.7:-4000", "192.0.2.1", ""),
        ("224.0.0.1:40000", "192.0.2.1", ""),
        ("0.0.0.0:40000", "192.0.2.1", ""),
        ("255.255.255.255:40000", "192.0.2.1", ""),
        ("example.org:40000", "192.0.2.1", ""),
        ("[fe80::7%eth1]:40000", "fe80::1%eth0", ""),
        ("192.0.2.7:40000/x", "192.0.2.1", ""),
        ("\u0664:40000", "192.0.2.1", ""),
    ],
)
def test_only_addresses_that_may_be_asked_are_taken(line: str, provider: str, url: str) -> None:
    assert read_peers(f"2\n{line}".encode(), provider) == (2, [url] if url else [])


@pytest.mark.parametrize("said", [b"", b"0", b"-4", b"1000000", b"\xff\xfe", b"4e3", b"many\n"])
def test_a_number_of_machines_that_cannot_be_is_one(said: bytes) -> None:
    assert read_peers(said, "192.0.2.1") == (1, [])


def test_nobody_beyond_a_router_is_asked(out: int) -> None:
    """The kernel gives a packet to no router: there is no way to an address of another network."""
    far = Connection(parse_url("http://198.51.100.7:40000"), crowds._NEAR)
    with pytest.raises(ProviderFailedError, match="Network is unreachable"):
        far.get("/x", deadline=monotonic() + 5)


def test_in_a_large_crowd_machines_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(others, "monotonic", lambda: clock)
    monkeypatch.setattr(others, "_chance", lambda: 0.5)
    one = Others()
    one.set("a", b"")
    one.machines = 10 * others.ASKING
    # The first turn comes by chance, with a try now and then.
    assert not one.turn()
    monkeypatch.setattr(others, "_chance", lambda: 0.0999)
    assert not one.turn()
    clock += others.BEGIN_SECONDS
    assert one.turn()
    # A tenth of the time is its own.
    monkeypatch.setattr(others, "_chance", lambda: 0.5)
    one.asked(1000, 0.2)
    one.came(1000, shared=False)
    clock += 1.79
    assert not one.turn()
    clock += 0.02
    assert one.turn()
    one.asked(1000, 100.0)
    clock += others.HUNGRY_SECONDS - 1.9
    assert not one.turn()
    # Where nothing comes at all, it was told of machines that are not there.
    clock += 0.2
    assert one.turn()
    one.came(1, shared=True)
    assert not one.turn()
    one.machines = others.ASKING
    assert one.turn()


def test_others_that_dribble_keep_no_provider_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(others, "monotonic", lambda: clock)
    one = Others()
    one.set("a", b"\xff")
    assert not one.slow()
    clock += others.WINDOW
    one.came(1, shared=True)
    assert one.slow()
    # Once it is known how quick a provider is, they are compared with it.
    one.asked(1000, 1.0)
    clock += others.WINDOW
    one.came(2000, shared=True)
    assert not one.slow()


def test_bits() -> None:
    assert [bit(b"\x05\x80", index) for index in (0, 1, 2, 15, 16)] == [True, False, True, True, False]
