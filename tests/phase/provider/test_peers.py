"""Machines that share a release find each other at a provider: on one link, for seconds, a few of them."""

import hashlib
import ipaddress
import itertools
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from phase.discovery.interfaces import Interface
from phase.discovery.records import DiscoveryError
from phase.provider import make_app
from phase.provider.app import TOGETHER
from phase.provider.peers import (
    KEEP_SECONDS,
    MAX_PEERS,
    MAX_PER_HOST,
    MAX_RELEASES,
    MOST_TOLD,
    Peers,
    Seen,
)
from phase.provider.together import Board
from tests.phase.provider.conftest import FILES, Publish

MakeClient = Callable[[web.Application], Awaitable["TestClient[web.Request, web.Application]"]]
HEX = hashlib.sha256(FILES["rootfs"]).hexdigest()
LAN = Interface(
    2,
    "eth0",
    (ipaddress.ip_interface("192.0.2.1/24"), ipaddress.ip_interface("2001:db8::1/64")),
)
OTHER = Interface(3, "eth1", (ipaddress.ip_interface("198.51.100.1/24"),))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def named(peers: Peers, digest: str, address: object, port: str) -> list[str]:
    """The machines that one is told of."""
    return peers.ask(digest, address, port)[1:]


def table(clock: Clock | None = None, links: tuple[Interface, ...] = (LAN, OTHER)) -> Peers:
    return Peers(links=lambda: list(links), clock=clock or Clock())


def test_machines_of_one_network_are_told_of_each_other() -> None:
    peers = table()
    assert named(peers, "a", ("192.0.2.7", 1), "40007") == []
    assert named(peers, "a", ("192.0.2.8", 1), "40008") == ["192.0.2.7:40007"]
    assert named(peers, "a", ("192.0.2.7", 1), "40007") == ["192.0.2.8:40008"]
    assert named(peers, "another release", ("192.0.2.9", 1), "40009") == []


def test_a_machine_of_another_network_is_neither_told_nor_named() -> None:
    peers = table()
    peers.ask("a", ("192.0.2.7", 1), "40007")
    assert named(peers, "a", ("198.51.100.7", 1), "40000") == []
    # The Internet: nobody there is noted.
    assert named(peers, "a", ("203.0.113.7", 1), "40000") == []
    assert named(peers, "a", None, "40000") == []
    assert named(peers, "a", ("unix", 1), "40000") == []
    assert named(peers, "a", ("192.0.2.8", 1), "40008") == ["192.0.2.7:40007"]
    assert [each.host for each in peers.own["a"]] == ["192.0.2.7", "198.51.100.7", "192.0.2.8"]


def test_ipv6_and_its_forms() -> None:
    peers = table()
    peers.ask("a", ("2001:db8::7", 1, 0, 0), "40007")
    peers.ask("a", ("fe80::7%eth0", 1, 0, 2), "40008")
    peers.ask("a", ("fe80::8%eth1", 1, 0, 3), "40009")
    found = named(peers, "a", ("::ffff:192.0.2.9", 1, 0, 0), "40010")
    assert sorted(found) == ["[2001:db8::7]:40007", "[fe80::7]:40008"]
    assert "192.0.2.9:40010" in named(peers, "a", ("192.0.2.8", 1), "0")


@pytest.mark.parametrize(
    "port", ["", "0", "80", "9100", "32767", "65536", "99999", "-4000", "+4000", "040000", "4e4", "٤٠٠٠٠"]
)
def test_a_port_that_is_none_is_not_noted(port: str) -> None:
    peers = table()
    peers.ask("a", ("192.0.2.7", 1), port)
    assert peers.own == {}


def test_a_machine_is_forgotten_soon() -> None:
    clock = Clock()
    peers = table(clock)
    peers.ask("a", ("192.0.2.7", 1), "40007")
    clock.now += KEEP_SECONDS
    assert named(peers, "a", ("192.0.2.8", 1), "40008") == ["192.0.2.7:40007"]
    clock.now += 0.1
    assert named(peers, "a", ("192.0.2.9", 1), "40009") == ["192.0.2.8:40008"]
    assert [each.host for each in peers.own["a"]] == ["192.0.2.8", "192.0.2.9"]


def test_the_table_has_a_size() -> None:
    peers = table()
    for host, port in itertools.product(range(2, 250), range(40_000, 40_008)):
        assert len(named(peers, "a", (f"192.0.2.{host}", 1), str(port))) <= MOST_TOLD
    assert len(peers.own["a"]) == MAX_PEERS
    assert {each.host for each in peers.own["a"]} == {f"192.0.2.{host}" for host in range(234, 250)}
    assert MAX_PEERS // MAX_PER_HOST == 16
    for number in range(100):
        peers.ask(f"release {number}", ("192.0.2.7", 1), "40007")
    assert list(peers.own) == [f"release {number}" for number in range(100 - MAX_RELEASES, 100)]


def test_where_the_networks_are_not_known_nobody_is_near() -> None:
    def fails() -> list[Interface]:
        raise DiscoveryError("no netlink")

    peers = Peers(links=fails)
    peers.ask("a", ("192.0.2.7", 1), "40007")
    assert peers.own == {}


def test_what_other_processes_know_is_told_too() -> None:
    there = {"a": [Seen(2, "192.0.2.7", 40_007, 100.0), Seen(2, "192.0.2.6", 40_006, 1.0)]}
    peers = Peers(lambda: [there], lambda: [LAN], Clock())
    assert named(peers, "a", ("192.0.2.8", 1), "40008") == ["192.0.2.7:40007"]


def test_processes_report_machines_to_each_other(publish: Publish) -> None:
    """Through the memory that they share."""
    directory, board = publish(), Board(2)
    both = [make_app(directory, row=board.row(number))[TOGETHER] for number in range(2)]
    one, two = both
    for each in both:
        each.peers._links = lambda: [LAN]
    one.peers.ask(HEX, ("192.0.2.7", 1), "40007")
    one.tell()
    assert named(two.peers, HEX, ("192.0.2.8", 1), "40008") == ["192.0.2.7:40007"]


async def test_over_http(publish: Publish, aiohttp_client: MakeClient) -> None:
    client = await aiohttp_client(make_app(publish()))
    first = await client.get(f"/peers/sha256/{HEX}?port=40007")
    assert (first.status, await first.text()) == (200, "1\n")
    assert first.headers["Cache-Control"] == "no-store"
    second = await client.get(f"/peers/sha256/{HEX}?port=40008")
    assert await second.text() == "2\n127.0.0.1:40007\n"
    # Who does not say where it shares is told, and not noted.
    third = await client.get(f"/peers/sha256/{HEX}")
    assert sorted((await third.text()).split()) == ["127.0.0.1:40007", "127.0.0.1:40008", "3"]
    assert (await client.get(f"/peers/sha256/{'0' * 64}?port=40008")).status == 404
    assert (await client.post(f"/peers/sha256/{HEX}")).status == 405


def test_each_machine_is_counted_once_however_often_it_asks() -> None:
    clock = Clock()
    peers = table(clock)
    told = [int(peers.ask("a", (f"192.0.2.{2 + number % 250}", 1), "40000")[0]) for number in range(500)]
    assert told[:3] == [1, 2, 3]
    assert told[-1] == 250
    # One address with many ports is a few machines.
    for port in range(40_001, 40_101):
        peers.ask("a", ("192.0.2.254", 1), str(port))
    # The window is over.
    clock.now += 2.5
    assert peers.ask("a", ("192.0.2.2", 1), "40000")[0] == str(250 + MAX_PER_HOST)
    assert peers.ask("another", ("192.0.2.2", 1), "40000")[0] == "1"
    for number in range(100):
        peers.ask(f"release {number}", ("192.0.2.7", 1), "40007")
    assert len(peers._counts) == MAX_RELEASES


def test_each_process_counts_its_share() -> None:
    peers = Peers(lambda: [{}, {}, {}], lambda: [LAN], Clock())
    assert peers.ask("a", ("192.0.2.2", 1), "40000")[0] == "4"
