"""What travels by HTTP: answers to a client, requests to a provider, addresses, the status report."""

import json
import socket
from time import monotonic

from phase.cli.provider import describe, read_status
from phase.fetch import crowd, http, sharing
from phase.fetch.errors import FetchError
from phase.provider import page, ranges
from tests.fuzz.publishing import short


def response(data: bytes) -> None:
    """An HTTP answer, over a real socket pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        connection = http.Connection(http.parse_url("http://192.0.2.1:1"))
        connection._socket = ours
        connection._closed = True  # it must not try to reach the address
        first = len(data) % 2 or None
        try:
            connection.get("/x", deadline=monotonic() + 5, first=first, last=first and 9)
        except FetchError as error:
            short(error)


def head(data: bytes) -> None:
    """Status line and headers."""
    try:
        status, headers = http.parse_head(data)
    except ValueError:
        pass  # the caller makes its own error of it
    else:
        assert 0 <= status <= 999
        assert len(headers) <= http.MAX_HEADERS + 1


def url(data: bytes) -> None:
    """A provider's address, as discovery or the command line gives it."""
    try:
        found = http.parse_url(data.decode("utf-8", "surrogateescape"))
    except FetchError as error:
        short(error)
    else:
        assert 0 < found.port < 65_536
        assert "\r" not in found.authority + found.prefix


def range_header(data: bytes) -> None:
    """What a client of the provider asks for."""
    text = data.decode("latin-1")
    parts = [*text.split("\0"), "", "", ""][:3]
    length = len(data) * 7
    chosen = ranges.select(parts[0], parts[1] or None, "sha256-x", length)
    if isinstance(chosen, ranges.Part):
        assert 0 <= chosen.first < length
        assert 0 < chosen.length <= length - chosen.first
    ranges.not_modified(parts[2], "sha256-x")
    ranges.precondition_failed(parts[2], "sha256-x")


def crowd_told(data: bytes) -> None:
    """What a provider says of other machines that fetch the same."""
    for provider in ("192.0.2.1", "fe80::1%eth0", "127.0.0.1", "provider.example"):
        told = crowd.read_peers(data, provider)
        assert 0 < told.machines < 10**6
        assert len(told.urls) <= crowd.MAX_TOLD
        for url in told.urls:
            assert http.parse_url(url).port >= sharing.LOWEST_PORT


def crowd_asked(data: bytes) -> None:
    """What other machines ask one that shares."""
    found = sharing.parse(data[: sharing.MAX_HEAD])
    if found is not None:
        assert len(found.digest) == 64
        assert found.first is None or 0 <= found.first < 10**15
        assert 0 <= found.last < 10**15


def said_status(data: bytes) -> None:
    """What a provider says of itself, as whoever asks for it reads and prints it."""
    try:
        found = read_status("http://192.0.2.1", data)
    except FetchError as error:
        short(error)
    else:
        assert describe(found).isprintable()
        assert page.render(found)


STATUS = json.dumps(
    {
        "service": "phase-provider",
        "version": "1",
        "uptime_seconds": 1.5,
        "time": 1.5,
        "repository_problem": "",
        "repository_loads": 1,
        "releases": [
            {
                "channel": "stable",
                "arch": "x86_64",
                "version": 1,
                "release": "1",
                "expires": "2030-01-01T00:00:00Z",
                "manifest": "/stable/x86_64/manifest.json",
                "artifacts": {"kernel": 100},
            }
        ],
        "mdns": {"running": True, "instances": ["a"], "problem": "", "seen": ["b"]},
        "active_requests": 0,
        "requests": 1,
        "bytes_sent": 1,
    }
).encode()
