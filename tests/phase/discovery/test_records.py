import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from phase import discovery
from phase.discovery import MAX_PROVIDERS, Provider, discover, records
from phase.discovery.records import DiscoveryError, from_txt, http_url

TXT: dict[bytes, bytes | None] = {
    b"txtvers": b"1",
    b"channel": b"stable",
    b"arch": b"x86_64",
    b"version": b"7",
    b"id": b"deadbeef",
}


def read(
    changed: dict[bytes, bytes | None] | None = None, address: str = "10.0.0.9", port: int | None = 8080
) -> Provider | None:
    return from_txt({**TXT, **(changed or {})}, address, port, channel="stable", arch="x86_64")


def test_a_record() -> None:
    assert read() == Provider("http://10.0.0.9:8080", "stable", "x86_64", 7, "mdns", "deadbeef")
    without = read({b"version": None})
    assert without is not None
    assert without.version is None
    assert read({b"version": b"9" * 15}) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {b"txtvers": b"2"},
        {b"channel": b"beta"},
        {b"arch": b"arm64"},
        {b"version": b"-1"},
        {b"version": b"9" * 16},
        {b"version": b"\xb2"},
        {b"id": b""},
        {b"id": None},
        {b"id": b"\x1b[31m"},
        {b"id": b"x" * 65},
        {b"id": "é".encode()},
        {b"extra": b"x" * 400},
        {b"k%d" % n: b"v" for n in range(12)},
    ],
)
def test_records_that_are_ignored(changed: dict[bytes, bytes | None]) -> None:
    assert read(changed) is None


@pytest.mark.parametrize("port", [None, 0, 65_536, -1])
def test_ports_that_are_none(port: int | None) -> None:
    assert read(port=port) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0.0.0.0",
        "224.0.0.251",
        "255.255.255.255",
        "::",
        "ff02::fb",
        "fe80::1",
        "::ffff:10.0.0.1",
        "host",
        "1.2.3",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    assert read(address=address) is None


def test_ipv6_addresses() -> None:
    found = read(address="2001:db8::1")
    assert found is not None
    assert found.url == "http://[2001:db8::1]:8080"
    # RFC 6874: the zone's percent sign is escaped.
    assert http_url("fe80::1", 80, zone="eth0") == "http://[fe80::1%25eth0]:80"


def test_given_addresses_come_first_once_and_bounded() -> None:
    urls = ["http://a", "http://b", "http://a", *(f"http://{n}" for n in range(100))]
    found = list(discover("stable", "x86_64", urls=urls, mdns=False, timeout=1))
    assert [provider.url for provider in found[:2]] == ["http://a", "http://b"]
    assert {provider.source for provider in found} == {"cmdline"}
    assert len(found) <= MAX_PROVIDERS


@pytest.mark.parametrize(
    ("text", "read_"),
    [
        ("192.0.2.1:8080", ("192.0.2.1", 8080)),
        ("boot.example.org:1", ("boot.example.org", 1)),
        ("a-b:65535", ("a-b", 65_535)),
    ],
)
def test_a_node_to_ask(text: str, read_: tuple[str, int]) -> None:
    assert records.peer(text) == read_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:\u0661",
        "host:9999999",
        "a..b:1",
        "a_b:1",
        "\xe9:1",
        f"{'a' * 64}:1",
        f"{'a.' * 127}:1",
    ],
)
def test_what_is_no_node_to_ask(text: str) -> None:
    with pytest.raises(DiscoveryError, match="is not a DHT node"):
        records.peer(text)


class _Ends:
    """A search that finds nothing, and remembers for how long it would have been waited for."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.seconds: list[float] = []

    def next(self, end: float) -> None:
        self.seconds.append(end - time.monotonic())


@pytest.mark.parametrize(
    ("urls", "gather", "most"), [((), 5.0, 1000), (["http://a"], 5.0, 5), (["http://a"], None, 1000)]
)
def test_a_named_address_is_enough_after_a_while(
    monkeypatch: pytest.MonkeyPatch, urls: Sequence[str], gather: float | None, most: float
) -> None:
    ends = _Ends("no network")
    monkeypatch.setattr(discovery, "_ask", lambda *_, **__: ends)

    def look() -> list[Any]:
        return list(discover("stable", "x86_64", urls=urls, timeout=1000, gather=gather))

    if urls:
        assert [each.url for each in look()] == urls
    else:
        with pytest.raises(DiscoveryError, match="no network"):
            look()
    (seconds,) = ends.seconds
    assert most - 5 < seconds <= most


def test_further_addresses_come_last_and_useless_ones_after_them() -> None:
    queue: SimpleQueue[records.Heard] = SimpleQueue()

    def hear(host: int, rank: int, source: Any = "mdns") -> str:
        url = f"http://10.0.0.{host}:8080"
        queue.put(records.Heard(Provider(url, "stable", "x86_64", None, source, ""), rank))
        return url

    useless, further, first, far = hear(1, 0), hear(2, 1), hear(3, 0), hear(4, 0, "dht")
    hear(3, 0)
    sifter = discovery._Sifter(set(), [useless], mdns=True, gather=0.0)
    found = sifter.sift(discovery._Told(queue, ()), time.monotonic() + 1000)
    assert next(found).url == first
    # One nearby is enough for all that is not there yet.
    assert [each.url for each in found] == [far, further, useless]


def test_who_asks_does_not_count() -> None:
    """A system that looks for a newer release serves its own, and answers first."""
    queue: SimpleQueue[records.Heard] = SimpleQueue()
    own = ["http://192.0.2.1:8080", "http://[fe80::1%25eth0]:8080", "http://[2001:db8::1]:8080"]
    foreign = "http://[2001:db8::2]:8080"
    for url in (*own, foreign):
        queue.put(records.Heard(Provider(url, "stable", "x86_64", None, "mdns", ""), 0))
    besides = {"192.0.2.1", "fe80::1", "2001:db8::1"}
    sifter = discovery._Sifter(set(), (), mdns=True, gather=0.0, besides=besides)
    found = sifter.sift(discovery._Told(queue, ()), time.monotonic() + 1000)
    assert [each.url for each in found] == [foreign]
