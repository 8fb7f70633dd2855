"""Whatever a provider sends, what comes out is ours: an answer, or a PhaseError."""

import contextlib
import json
import socket
import threading
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.hostile.world import ARCH, CHANNEL, World
from phase import trust
from phase.errors import PhaseError
from phase.fetch import Client, http, url
from phase.trust import floor

#: Answers to begin with; each is taken, or refused for what it is.
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 206 P\r\nContent-Range: bytes 0-4/5\r\n\r\nhello",
    b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 No\r\nContent-Type: text/html; charset=utf-16\r\nContent-Length: 3\r\n\r\n<p>",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<!doctype html><title>Hotel",
)
#: What is put into them, and into metadata: what parsers trip over.
PIECES = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"9" * 5000, b"-1", b"1e999", b"0x10",
    b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n", b":",
    b'"', b"\\", b"[" * 2000, b"{", b"}", b"null", b"true", b"NaN", b'"\\ud800"', b"1" * 16, b";", b",",
)  # fmt: skip
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES))


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for where, drop, piece in edits:
        at = int(where * len(data))
        data = data[:at] + piece + data[at + drop :]
    return data


@given(st.sampled_from(ANSWERS), st.lists(EDIT, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_answer(answer: bytes, edits: list[tuple[float, int, bytes]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(edited(answer, edits))
        theirs.shutdown(socket.SHUT_WR)
        client = Client(["http://192.0.2.1:1"], timeout=2)
        connection = client._usable[0]
        connection._socket = ours
        said = ""
        with pytest.MonkeyPatch.context() as patch:
            # The answer is given already; it must not try to reach anybody.
            patch.setattr(connection, "_connect", _gone)
            try:
                assert len(client.get("/x", 64)) <= 64
            except PhaseError as error:
                said = str(error)
        assert len(said) < 1000
        assert not set(said) & {"\n", "\x1b"}


def _gone(deadline: float) -> socket.socket:
    raise trust.NotFoundError("asked a second time")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_metadata(world: World, data: st.DataObject) -> None:
    files = {name.rpartition("/")[2]: body for name, body in world.now.items() if "/metadata/" in name}
    name = data.draw(st.sampled_from(sorted(files)))
    files[name] = edited(files[name], data.draw(st.lists(EDIT, min_size=1, max_size=3)))
    if data.draw(st.booleans()):
        files["2.root.json"] = edited(files["1.root.json"], data.draw(st.lists(EDIT, max_size=3)))

    def get(asked: str, limit: int) -> bytes:
        if asked not in files:
            raise trust.NotFoundError(asked)
        return files[asked][: limit + 1]

    with contextlib.suppress(PhaseError):
        trust.refresh(world.root, get, channel=CHANNEL, arch=ARCH, now=datetime.now(UTC))


FLOOR = floor.encode(
    floor.Floor(3, 4, 5, {"a.json": 1}, {"timestamp": ["00" * 32]}, 1_700_000_000, {"0" * 16: 3})
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(EDIT, max_size=3), st.sampled_from(sorted(json.loads(FLOOR))), VALUES)
@settings(max_examples=150, deadline=None)
def test_any_floor(edits: list[tuple[float, int, bytes]], field: str, value: Any) -> None:
    """A disk may be anybody's; and what can be read can be written again, and used."""
    for data in (edited(FLOOR, edits), json.dumps(json.loads(FLOOR) | {field: value}).encode()):
        with contextlib.suppress(PhaseError):
            found = floor.parse(data, "a disk")
            assert floor.parse(floor.encode(found), "a disk") == found
            floor.merged([found, floor.Floor()])


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: "http://" + data.decode("latin-1")))
@settings(max_examples=300, deadline=None)
def test_any_address(text: str) -> None:
    with contextlib.suppress(PhaseError):
        found = http.parse_url(text)
        assert 0 < found.port < 65_536
        assert url.redirected(found, text) in (None, "/", text, text[len("http://" + found.authority) :])


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "[::1%25x]", "0x7f.1"])
def test_any_host(host: str) -> None:
    """Looking up a name may fail in other ways than a network does."""
    began = monotonic()
    threads = threading.active_count()
    connection = http.Connection(http.parse_url(f"http://{host}:9"))
    with pytest.raises(PhaseError, match="no connection"):
        connection.get("/x", deadline=monotonic() + 1.5)
    assert monotonic() - began < 5
    assert threading.active_count() <= threads + 1
