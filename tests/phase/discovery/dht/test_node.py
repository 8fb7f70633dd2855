"""Nodes on loopback: they find each other, and keep what holds (`phase.discovery.dht.node`)."""

import asyncio
import ipaddress
import os
import socket
import time

import pytest
from kademlia.network import Server

from phase.discovery.dht import announcement, wire
from phase.discovery.dht.announcement import Announcement
from phase.discovery.dht.node import Dht
from phase.discovery.dht.resolve import resolve
from phase.discovery.records import DiscoveryError
from tests.phase.discovery.dht.conftest import Start
from tests.phase.discovery.dht.nodes import PLACE, asked_back, found, lie, settled, signed, until


async def test_announced_here_and_found_there(start: Start, net: str) -> None:
    first, address = await start(1)
    nodes = [first] + [(await start(number, [address]))[0] for number in range(2, 9)]
    await settled(nodes)
    kept = await nodes[3].announce(PLACE, signed(f"{net}.4"))
    assert kept == 7
    looker, _ = await start(20, [address], serves=False)
    said = await found(looker)
    assert [(one.url, one.version) for one in said] == [(f"http://{net}.4:8080", 7)]
    # Who only looks is in nobody's table, and nobody is answered by it.
    assert not any(contact.host == f"{net}.20" for one in nodes for contact in one.known)


async def test_a_node_of_the_library_takes_part(start: Start, net: str) -> None:
    """The wire format is kademlia's: such a node joins, finds neighbours, and is asked."""
    first, address = await start(1)
    other = Server()
    await other.listen(0, f"{net}.2")
    try:
        neighbours = await other.bootstrap([address])
        assert [(one.ip, one.port) for one in neighbours] == [address]
        await settled([first])
        port = other.transport.get_extra_info("sockname")[1]
        assert [(one.id, one.host, one.port) for one in first.known] == [(other.node.id, f"{net}.2", port)]
        looker, _ = await start(3, [address])
        await settled([looker])
        assert {one.host for one in looker.known} == {f"{net}.1", f"{net}.2"}
    finally:
        other.stop()


async def test_a_dead_node_is_forgotten_and_stops_nobody(start: Start, net: str) -> None:
    first, address = await start(1)
    dead, _ = await start(2, [address])
    alive, _ = await start(3, [address])
    await settled([first, dead, alive])
    dead.close()
    begun = time.monotonic()
    assert await alive.announce(PLACE, signed(f"{net}.3")) == 1
    assert time.monotonic() - begun < 10
    assert {one.host for one in alive.known} == {f"{net}.1"}


async def test_nobody_announces_another(start: Start, net: str) -> None:
    first, address = await start(1)
    mallory, _ = await start(66, [address])
    assert await mallory.announce(PLACE, signed(f"{net}.7")) == 0
    assert len(first.held) == 0


async def test_a_forged_sender_is_asked_first(start: Start, net: str) -> None:
    """A store in the name of a host that is not there is not kept, whatever it holds."""
    first, address = await start(1)
    gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    gone.bind((f"{net}.9", 0))
    question = wire.question(os.urandom(20), "store", os.urandom(20), PLACE, signed(f"{net}.9"))
    gone.sendto(question, address)
    gone.close()
    await until(lambda: f"{net}.9" in first._storing)
    await until(lambda: not first._storing)
    assert len(first.held) == 0


async def test_most_see_the_right_address(start: Start, net: str) -> None:
    _, address = await start(1)
    second, _ = await start(2, [address])
    assert await second.seen_as() == f"{net}.2"
    assert await Dht(serves=False).seen_as() is None


async def test_an_id_belongs_to_who_had_it_first(start: Start, net: str) -> None:
    first, address = await start(1)
    honest, _ = await start(2, [address])
    await settled([first, honest])
    evil, at = await lie(f"{net}.66")
    evil.id = honest.id
    try:
        await first.join([at])
        assert [one.host for one in first.known] == [f"{net}.2"]
    finally:
        evil.transport.close()


async def test_who_does_not_have_it_itself_has_nothing_kept(start: Start, net: str) -> None:
    """Whoever sends in another's name, or from behind the same address, cannot answer for that one."""
    first, address = await start(1)
    evil, _ = await lie(f"{net}.66", find_node=[], find_value=[])
    try:
        evil.store(address, PLACE, signed(f"{net}.66"))
        await asked_back(first, evil)
        assert len(first.held) == 0
    finally:
        evil.transport.close()


async def test_a_far_node_names_no_address_of_this_machine(
    start: Start, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1, 169.254.7.7: nobody far away knows what is on this machine, or on its cable."""
    looker, _ = await start(20)
    said: list[Announcement] = []
    for teller, wanted in (("192.0.2.1", 1), ("127.0.0.1", 3)):
        said.clear()

        async def search(place: bytes, take: object, teller: str = teller) -> list[object]:
            assert callable(take)
            near = [
                signed("127.0.0.1", seed=1),
                signed("169.254.7.7", seed=2),
                signed("198.51.100.7", seed=3),
            ]
            take(teller, near)
            return []

        # Only what a search brings matters here, not how it is made.
        monkeypatch.setattr(looker, "_search", search)
        await looker.look(PLACE, said.append)
        assert len(said) == wanted
    far = wire.usable([(PLACE, "127.0.0.1", 9), (PLACE, "192.0.2.2", 9)], teller="192.0.2.1")
    assert [each.host for each in far] == ["192.0.2.2"]


async def test_each_asker_is_told_the_address_on_its_own_network(start: Start, net: str) -> None:
    """A host with several cards: who is on a network of its own is told that card's address."""
    several, address = await start(1)
    several.networks = [ipaddress.IPv4Interface(f"{net}.130/25"), ipaddress.IPv4Interface("192.0.2.7/24")]
    hosts = ["198.51.100.7", f"{net}.130", "192.0.2.7"]
    assert await several.tell(PLACE, signed, hosts) == 0
    for number, wanted in ((200, f"{net}.130"), (20, "198.51.100.7")):
        looker, _ = await start(number, [address], serves=False)
        assert {one.host for one in await found(looker)} == {wanted}


async def test_each_keeper_keeps_the_address_that_it_sees(start: Start, net: str) -> None:
    """Not what most of the others see: a host on two networks has an address on each."""
    keeper, address = await start(1)
    teller, _ = await start(2, [address])
    await settled([keeper, teller])
    assert await teller.tell(PLACE, signed, ["198.51.100.7"]) == 1
    kept = [announcement.read(each, place=PLACE, now=time.time()) for each in keeper.held.get(PLACE, now=0)]
    assert [one.host for one in kept] == [f"{net}.2"]


async def test_an_id_belongs_to_the_address_that_others_see(start: Start, net: str) -> None:
    _, address = await start(1)
    one, (host, _) = await start(2, [address])
    assert wire.Contact(one.id, host, 1).bound
    everywhere = Dht(serves=True)
    try:
        await everywhere.start("0.0.0.0", 0)
        await everywhere.join([address])
        assert wire.Contact(everywhere.id, "127.0.0.1", 1).bound
        before = everywhere.id
        await everywhere.join([address])
        assert everywhere.id == before
    finally:
        everywhere.close()


async def test_who_announces_again_is_kept_again(start: Start, net: str) -> None:
    first, address = await start(1)
    teller, _ = await start(2, [address])
    await settled([first, teller])
    now = time.time()
    for later in range(3):
        assert await teller.announce(PLACE, signed(f"{net}.2", now=now + later)) == 1
    (kept,) = first.held.get(PLACE, now=0)
    assert kept == signed(f"{net}.2", now=now + 2)


async def test_an_answer_has_eight_values_with_its_own(start: Start, net: str) -> None:
    keeper, address = await start(1)
    own = signed(f"{net}.1", seed=77)
    keeper.own[PLACE] = {f"{net}.1": own}
    for number in range(2, 18):
        envelope = signed(f"{net}.{number}", seed=number)
        keeper.held.put(PLACE, envelope, sender=(f"{net}.{number}", 8080), now=time.time())
    looker, _ = await start(30, serves=False)
    await looker.reach([address])
    said = await looker._endpoint.ask(address, wire.Values, "find_value", looker.id, PLACE)
    assert own in said.envelopes
    assert len(said.envelopes) == 8


async def test_another_announcement_is_no_proof(start: Start, net: str) -> None:
    """Asked back, the sender has one, but not the one that it wants to have kept."""
    first, address = await start(1)
    evil, _ = await lie(f"{net}.66", find_node=[], find_value={"value": [signed(f"{net}.66", seed=5)]})
    try:
        evil.store(address, PLACE, signed(f"{net}.66"))
        await asked_back(first, evil)
        assert len(first.held) == 0
    finally:
        evil.transport.close()


async def test_who_was_met_is_not_pinged_again(start: Start, net: str) -> None:
    first, address = await start(1)
    other, at = await lie(f"{net}.2", find_node=[], find_value=[])
    other.id = os.urandom(20)
    try:
        await first.reach([at])
        await settled([first])
        assert other.asked == 1
        for _ in range(5):
            other.answered = 0
            other.transport.sendto(wire.question(os.urandom(20), "find_node", other.id, PLACE), address)
            await until(lambda: other.answered == 1)
        await settled([first])
        assert other.asked == 1
        # A lookup asks it, and that is all.
        await first.look(PLACE, lambda said: None)
        await settled([first])
        assert other.asked == 2
    finally:
        other.transport.close()


async def test_few_strangers_are_pinged_at_the_same_time(start: Start, net: str) -> None:
    """Whatever number of hosts they come from."""
    first, address = await start(1)
    strangers = []
    for number in range(40):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        strangers.append(one)
        one.setblocking(False)
        one.bind((f"{net}.{100 + number}", 0))
        one.sendto(wire.question(os.urandom(20), "ping", os.urandom(20)), address)
    for one in strangers:
        # Each is answered, after it was pinged or not.
        while (await asyncio.get_running_loop().sock_recv(one, 2000))[0] == 0:
            pass
    assert len(first._greeted) == 16
    for one in strangers:
        one.close()


async def test_a_port_in_use_is_said(start: Start, net: str) -> None:
    _, (host, port) = await start(1)
    with pytest.raises(
        DiscoveryError, match=f"UDP port {port} cannot be listened on: Address already in use"
    ):
        await Dht(serves=True).start(host, port)


async def test_all_hosts_together_get_so_many_bytes(start: Start) -> None:
    one, _ = await start(1)
    hosts = (f"192.0.2.{number}" for number in range(200))
    assert sum(one._endpoint._bytes.take(host, 64 << 10, 0.0) for host in hosts) == 128


@pytest.mark.parametrize(
    ("host", "found_"),
    [("192.0.2.7", 1), ("127.0.0.1", 1), ("224.0.0.1", 0), ("0.0.0.0", 0), ("999.1.1.1", 0)],
)
async def test_a_numeric_host_is_not_looked_up(
    monkeypatch: pytest.MonkeyPatch, host: str, found_: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a name server was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    assert await resolve(host, 8080) == [(host, 8080)] * found_


async def test_a_name_has_two_addresses_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(host: str, port: int, **_: object) -> list[object]:
        if host != "boot.example":
            raise socket.gaierror
        return [(2, 2, 17, "", (f"192.0.2.{number}", port)) for number in (1, 2, 3)]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    assert await resolve("boot.example", 8080) == [("192.0.2.1", 8080), ("192.0.2.2", 8080)]
    assert await resolve("gone.example", 8080) == []
