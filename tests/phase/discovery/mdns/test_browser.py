"""What is made of packets from anybody: no socket, no time."""

import gc
import ipaddress
import tracemalloc
from queue import SimpleQueue
from time import monotonic
from typing import Any, Literal

import pytest

from phase.discovery import Provider, discover
from phase.discovery.interfaces import Interface
from phase.discovery.mdns import browser, pool, wire
from phase.discovery.mdns.browser import Reader, candidates
from phase.discovery.mdns.wire import SERVICE_NAME, Record
from phase.discovery.records import DiscoveryError, Heard
from tests.phase.discovery.mdns.packets import DOCKER0, ETH0, LO, datagram, instance, pointer, provider


class Asker:
    """A machine that looks for stable/x86_64, with two cards and loopback."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Heard] = SimpleQueue()
        self.reader = Reader("stable", "x86_64", self.queue)
        self.reader.here = {each.number: each for each in (LO, ETH0, DOCKER0)}

    def hears(self, records: list[Record], source: str = "192.0.2.1", interface: Interface = ETH0) -> None:
        for data in wire.responses(records):
            self.reader.read(datagram(data, source, interface))

    @property
    def found(self) -> list[Heard]:
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]

    @property
    def urls(self) -> list[str]:
        return [each.provider.url for each in self.found]


@pytest.fixture
def asker() -> Asker:
    return Asker()


def test_a_provider_in_one_packet(asker: Asker) -> None:
    asker.hears(provider("192.0.2.1"))
    assert asker.found == [
        Heard(Provider("http://192.0.2.1:8080", "stable", "x86_64", 7, "mdns", "deadbeef"), 0)
    ]
    asker.hears(provider("192.0.2.1"))
    assert asker.found == []


def test_what_comes_in_pieces_is_asked_for(asker: Asker) -> None:
    records = provider("192.0.2.1")
    asker.hears(records[:1])
    name = instance(b"phase-stable-x86_64-deadbeef")
    ((index, questions),) = asker.reader.missing(monotonic() + 1).items()
    assert (index, {each.type for each in questions}) == (ETH0.number, {wire.SRV, wire.TXT})
    assert {each.name for each in questions} == {name}
    asker.hears([each for each in records if each.name == name])
    ((_, questions),) = asker.reader.missing(monotonic() + 5).items()
    assert {each.type for each in questions} == {wire.A, wire.AAAA}
    asker.hears([each for each in records if each.type == wire.A])
    assert asker.urls == ["http://192.0.2.1:8080"]
    assert asker.reader.later == {}


BAD = [
    b"\x1b[31mevil\n",
    b"UPPER-Case",
    "bös".encode(),
    b"\xff\xfe",
    b"x" * 63,
    b"\0",
    b"a.b",
    b" ",
]


@pytest.mark.parametrize("label", BAD)
def test_a_name_in_mdns_that_is_odd_is_one_name_less(asker: Asker, label: bytes) -> None:
    """An instance name with a control character, in upper case, of another service, or the root."""
    for number, target in enumerate([instance(label), (label, b"_other", b"_tcp", b"local"), (label,), ()]):
        odd = Record(SERVICE_NAME, wire.PTR, wire.pack_name(target))
        asker.hears([odd])
        asker.hears([odd, *provider("192.0.2.1", identity=f"id{number}")])
        assert asker.urls == ["http://192.0.2.1:8080"]


def test_an_odd_name_that_is_whole_counts(asker: Asker) -> None:
    """The TXT record decides, not the name; names are the same in upper and lower case."""
    records = [
        each._replace(name=tuple(label.upper() for label in each.name)) for each in provider("192.0.2.1")
    ]
    asker.hears(records)
    assert asker.urls == ["http://192.0.2.1:8080"]


def test_a_flood_in_mdns_is_bounded() -> None:
    """60 unique names a packet, each for two days, some with and some without all their records."""
    asker = Asker()
    asker.hears(provider("192.0.2.1"))
    assert asker.urls == ["http://192.0.2.1:8080"]

    def flood(start: int, count: int) -> None:
        for number in range(start, start + count):
            records = [pointer(b"%d-%d" % (number, each), 1 << 31) for each in range(60)]
            source = str(ipaddress.IPv4Address(0xC0000200 + number % 4000))
            asker.hears(records, source)
            asker.hears(provider(f"10.1.{number % 250}.9", identity=f"f{number}", channel="stable"), source)

    flood(0, 35)
    tracemalloc.start()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    flood(35, 35)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 1_000_000
    assert len(asker.reader.later) <= browser.MAX_LATER
    assert len(asker.reader.pool) <= pool.MAX_TELLERS * pool.MAX_OF_TELLER
    assert len(asker.reader.told) <= browser.MAX_TOLD
    assert asker.queue.qsize() <= browser.MAX_WAITING


def test_what_is_kept_until_the_rest_comes_has_a_bound() -> None:
    """Of one teller, and of all: those that are there make room."""
    kept = pool.Pool()
    for teller in range(2 * pool.MAX_TELLERS):
        ip = ipaddress.IPv4Address(0xC0000200 + teller)
        for number in range(pool.MAX_OF_TELLER + 30):
            kept.add(2, Record(instance(b"%d-%d" % (teller, number)), wire.TXT, b"x", 1 << 31), ip)
        assert len(kept) <= (teller + 1) * pool.MAX_OF_TELLER
    assert len(kept) == pool.MAX_TELLERS * pool.MAX_OF_TELLER
    kept.add(2, Record(instance(b"long"), wire.TXT, bytes(pool.MAX_BYTES + 1)), ip)
    assert kept.find(2, instance(b"long"), wire.TXT) == []


def test_what_waits_to_be_taken_has_a_bound(asker: Asker) -> None:
    for number in range(browser.MAX_WAITING + 50):
        asker.hears(provider(f"10.0.{number // 200}.{number % 200 + 1}", identity=f"w{number}"))
    assert asker.queue.qsize() == browser.MAX_WAITING


def test_who_tells_of_many_comes_after_who_tells_of_itself(asker: Asker) -> None:
    for number in range(40):
        asker.hears(provider(f"10.0.{number}.66", identity=f"m{number}"), "192.0.2.66")
    asker.hears(provider("192.0.2.1"))
    found = asker.found
    assert [each.provider.id for each in found if not each.rank].count("deadbeef") == 1
    assert sum(not each.rank for each in found) == browser.MAX_OF_TELLER + 1


def test_the_askers_own_bridge_is_no_candidate() -> None:
    told = [
        ipaddress.ip_address(ip) for ip in ("172.17.0.1", "172.17.0.9", "10.9.9.9", "192.0.2.1", "fe80::1")
    ]
    here = {each.number: each for each in (LO, ETH0, DOCKER0)}
    found = candidates(told, ETH0, here, ipaddress.ip_address("192.0.2.1"))
    # On the cable that it was heard on, then behind a router, then what may be another's bridge.
    assert [str(ip) for ip in found] == ["192.0.2.1", "fe80::1", "10.9.9.9", "172.17.0.9"]
    # Of itself, this machine may say so.
    assert candidates(told[:1], DOCKER0, here, ipaddress.ip_address("172.17.0.1")) == told[:1]


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255"]
)
def test_addresses_that_lead_nowhere_are_no_candidates(ip: str) -> None:
    here = {each.number: each for each in (LO, ETH0)}
    assert candidates([ipaddress.ip_address(ip)], ETH0, here, ipaddress.ip_address("192.0.2.1")) == []


def test_other_addresses_of_one_provider_come_after_others_first(asker: Asker) -> None:
    asker.hears(provider("10.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1"))
    found = asker.found
    assert [each.rank for each in found] == [0, 1, 2, 3]
    assert [each.provider.url for each in found] == [
        "http://192.0.2.1:8080",
        "http://[fe80::1%25eth0]:8080",
        "http://10.0.0.1:8080",
        "http://[2001:db8::1]:8080",
    ]


def test_a_goodbye_is_no_provider(asker: Asker) -> None:
    asker.hears([each._replace(ttl=0) for each in provider("192.0.2.1")])
    assert asker.found == []


class _Asked:
    """A local network that tells of these, and then of nothing."""

    problem = ""

    def __init__(self, *heard: tuple[str, int]) -> None:
        self._heard = heard

    def __call__(self, channel: str, arch: str, queue: "SimpleQueue[Heard]") -> "_Asked":
        return self.tell(channel, arch, queue, "mdns")

    def tell(
        self, channel: str, arch: str, queue: "SimpleQueue[Heard]", source: Literal["dht", "mdns"]
    ) -> "_Asked":
        for url, rank in self._heard:
            queue.put(Heard(Provider(url, channel, arch, None, source, ""), rank))
        return self

    def __enter__(self) -> "_Asked":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def look(
    monkeypatch: pytest.MonkeyPatch, *heard: tuple[str, int], last: set[str] | None = None
) -> list[str]:
    from phase.discovery import mdns

    monkeypatch.setattr(mdns, "Browser", _Asked(*heard))
    return [one.url for one in discover("stable", "x86_64", timeout=0.05, last=last or set())]


def test_who_answers_for_many_is_not_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"http://10.0.0.66:{port}" for port in range(1, 65)]
    found = look(monkeypatch, *((url, 0) for url in many), ("http://10.0.0.7:8080", 0))
    assert found == [*many[:2], "http://10.0.0.7:8080"]


def test_those_that_were_of_no_use_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    useless = [f"http://10.0.0.{number}:8080" for number in range(100, 120)]
    heard = [*((url, 0) for url in useless), ("http://10.0.0.7:8080", 0), ("http://10.0.0.8:8080", 1)]
    found = look(monkeypatch, *heard, last=set(useless))
    assert found == ["http://10.0.0.7:8080", "http://10.0.0.8:8080", *useless[:14]]


def test_answers_of_the_dht_leave_room_for_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen of them come first; the provider nearby comes through."""
    from phase.discovery import dht, mdns

    def search(
        channel: str, arch: str, peers: object, queue: "SimpleQueue[Heard]", *, clock: object
    ) -> _Asked:
        return _Asked(*((url, 0) for url in far)).tell(channel, arch, queue, "dht")

    far = [f"http://198.51.100.{number}:8080" for number in range(1, 17)]
    monkeypatch.setattr(dht, "Search", search)
    monkeypatch.setattr(mdns, "Browser", _Asked(("http://192.0.2.1:8080", 0)))
    options: dict[str, Any] = {"timeout": 0.05, "dht": [("198.51.100.99", 1)]}
    found = [one.url for one in discover("stable", "x86_64", **options)]
    assert "http://192.0.2.1:8080" in found
    assert len(found) == 9
    # Where the local network is not asked, they have all the room.
    found = [one.url for one in discover("stable", "x86_64", mdns=False, **options)]
    assert len(found) == 16


def test_a_search_that_breaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own thread, where an error would be a trace on the console and a search without a reason."""

    def breaks(self: browser.Browser) -> None:
        raise KeyError("\x1b[31m")

    monkeypatch.setattr(browser.Browser, "_open", breaks)
    with pytest.raises(DiscoveryError, match=r"multicast DNS failed: KeyError\('\\x1b\[31m'\)"):
        list(discover("stable", "x86_64", timeout=0.3))


def test_a_search_of_the_dht_that_breaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from phase.discovery.dht.node import Dht

    async def breaks(self: Dht, *_: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr(Dht, "start", breaks)
    with pytest.raises(DiscoveryError, match="the DHT failed: KeyError"):
        list(discover("stable", "x86_64", mdns=False, dht=[("192.0.2.9", 1)], timeout=0.3))


def test_all_tellers_together_are_looked_at_four_times_as_often_as_one() -> None:
    queue: SimpleQueue[Heard] = SimpleQueue()
    search = browser.Browser("nobody", "x86_64", queue)
    try:
        looked = sum(search._looked_at.take(f"192.0.2.{n}", 120, monotonic()) for n in range(8))
    finally:
        search.close()
    # Others on this machine may have been heard meanwhile.
    assert 3 <= looked <= 4
