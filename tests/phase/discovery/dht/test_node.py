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
from tests.phase.discovery.dht.conftest import Start
from tests.phase.discovery.dht.nodes import PLACE, found, lie, settled, signed


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
    await asyncio.sleep(0.1)
    await settled([first])
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
        await asyncio.sleep(0.1)
        await settled([first])
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

        async def search(place: bytes, question: str, take: object, teller: str = teller) -> list[object]:
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
