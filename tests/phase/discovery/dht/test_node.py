"""Nodes on loopback: they find each other, keep what holds, and stand what others send."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from queue import SimpleQueue

import msgspec
import pytest
from kademlia.network import Server

from fixtures.hostile.dht import LIES, VICTIM, Liar, Lie, Town, liar
from phase.discovery.dht import Search, announcement, lookup, wire
from phase.discovery.dht.announcement import Announcement
from phase.discovery.dht.node import Dht
from phase.discovery.dht.table import MAX_OF_HOST
from phase.discovery.records import Heard
from phase.identity import Identity
from tests.phase.discovery.dht.conftest import Start

PLACE = announcement.key("stable", "x86_64")


def signed(host: str, port: int = 8080, *, seed: int = 1, now: float | None = None) -> bytes:
    return announcement.sign(
        Identity.from_seed(seed.to_bytes(32)),
        channel="stable",
        arch="x86_64",
        host=host,
        port=port,
        version=7,
        now=time.time() if now is None else now,
    )


async def found(one: Dht) -> list[Announcement]:
    said: list[Announcement] = []
    await one.look(PLACE, said.append)
    return said


async def settled(nodes: list[Dht]) -> None:
    """Until all greetings are done, so that everybody knows whom it has met."""
    while any(one._greeted for one in nodes):
        await asyncio.sleep(0.02)


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


async def lie(host: str, **answers: object) -> tuple[Liar, tuple[str, int]]:
    return await liar(host, 0, PLACE[:19] + bytes((PLACE[19] ^ 1,)), **answers)


def endless(arguments: list[bytes]) -> list[tuple[bytes, str, int]]:
    """Nodes that are nearer each time, and none of them there."""
    return [(PLACE[:10] + os.urandom(10), f"127.9.{os.urandom(1)[0]}.{n + 1}", 9) for n in range(20)]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"value": []},
        {"value": ["text"]},
        {"value": [b"x" * 9000]},
        {"value": [b"{}"] * 17},
        {"value": [b""], "nodes": 5},
        [(b"short", "127.0.0.1", 1)],
        [(b"\0" * 20, "host", 1), (b"\0" * 20, "224.0.0.1", 1), (b"\0" * 20, "127.0.0.1", 0)],
        [[[[[[]]]]]],
        "nothing",
        None,
        True,
        bytearray(b"\xc1"),
        bytearray(b"\x91" * 9000),
        bytearray(b"\xdd\xff\xff\xff\xff"),
        endless,
    ],
    ids=range(16),
)
async def test_a_liar_beside_honest_nodes_hides_nothing(start: Start, net: str, answer: object) -> None:
    """It sits next to the place, where everybody looks first."""
    _, address = await start(1)
    honest, _ = await start(2, [address])
    evil, at = await lie(f"{net}.66", find_value=answer, find_node=[], store=True)
    try:
        looker, _ = await start(3, [address, at])
        await settled([looker])
        assert {one.host for one in looker.known} == {f"{net}.1", f"{net}.2", f"{net}.66"}
        await honest.announce(PLACE, signed(f"{net}.2"))
        begun = time.monotonic()
        assert [one.url for one in await found(looker)] == [f"http://{net}.2:8080"]
        assert time.monotonic() - begun < 40
        assert evil.asked < 40
    finally:
        evil.transport.close()


async def test_what_a_liar_tells_is_checked(start: Start, net: str) -> None:
    _, address = await start(1)
    true = signed(f"{net}.5", seed=5)
    torn = true.replace(b"payload", b"payloat", 1)
    old = signed(f"{net}.6", seed=6, now=time.time() - announcement.LIFETIME - 1)
    evil, at = await lie(f"{net}.66", find_value={"value": [torn, old, true, true]}, find_node=[])
    try:
        looker, _ = await start(3, [address, at])
        # A true one it may replay as long as that counts: it leads to where it led before.
        assert [one.url for one in await found(looker)] == [f"http://{net}.5:8080"]
    finally:
        evil.transport.close()


@pytest.mark.parametrize("lie_", LIES, ids=lambda one: one.name)
async def test_no_lie_is_kept_or_believed(start: Start, net: str, lie_: Lie) -> None:
    """Stored with an honest node, and answered to who looks."""
    town = Town(now=time.time(), liar=f"{net}.66")
    envelope = lie_.tell(town)
    first, address = await start(1)
    evil, at = await lie(town.liar, find_node=[], find_value={"value": [envelope]})
    try:
        evil.store(address, PLACE, envelope)
        await asyncio.sleep(0.05)
        await settled([first])
        kept = first.held.get(PLACE, now=town.now)
        # Alone, these two are true; what is wrong is what they come on top of.
        assert kept == ([envelope] if lie_.name in ("dht-third-of-one-host", "dht-full-place") else [])
        looker, _ = await start(3, [address, at])
        hosts = {one.host for one in await found(looker)}
        # What no signature can tell is a hint that costs one connection.
        assert hosts <= {town.liar, VICTIM}
        assert not hosts or lie_.name in HINTS
    finally:
        evil.transport.close()


#: What only a node can tell that hears it from the host itself, or has heard more before.
HINTS = {
    "dht-replayed",
    "dht-another-host",
    "dht-for-ever",
    "dht-in-advance",
    "dht-third-of-one-host",
    "dht-full-place",
}


async def test_many_of_one_host_are_not_all_there_is(start: Start, net: str) -> None:
    """Forty nodes of one address surround the place; the honest ones are asked all the same."""
    _, address = await start(1)
    honest, _ = await start(2, [address])
    await honest.announce(PLACE, signed(f"{net}.2"))
    liars = [await lie(f"{net}.66") for _ in range(40)]
    for number, (evil, _) in enumerate(liars):
        evil.id = PLACE[:19] + bytes((PLACE[19] ^ number,))
    crowd = [(evil.id, *at) for evil, at in liars]
    for evil, _ in liars:
        evil.answers = {"find_value": crowd[:20], "find_node": crowd[:20]}
    try:
        looker, _ = await start(3, [address, *(at for _, at in liars[:8])])
        assert sum(one.host == f"{net}.66" for one in looker.known) == MAX_OF_HOST
        assert [one.url for one in await found(looker)] == [f"http://{net}.2:8080"]
        assert sum(evil.asked for evil, _ in liars) < 60
    finally:
        for evil, _ in liars:
            evil.transport.close()


async def test_nodes_that_do_not_exist_keep_nobody_waiting(start: Start, net: str) -> None:
    """Four hosts of liars tell of twenty nearer ones each, none of them there; the honest one is heard."""
    _, address = await start(1)
    honest, _ = await start(2, [address])
    await honest.announce(PLACE, signed(f"{net}.2"))
    liars = [await lie(f"{net}.{66 + n}", find_node=endless, find_value=endless) for n in range(4)]
    for number, (evil, _) in enumerate(liars):
        evil.id = PLACE[:19] + bytes((PLACE[19] ^ number,))
    try:
        looker, _ = await start(3, serves=False)
        await looker.reach([*(at for _, at in liars), address])
        heard: list[float] = []
        begun = time.monotonic()
        await looker.look(PLACE, lambda said: heard.append(time.monotonic() - begun))
        assert heard
        assert heard[0] < 5
        assert time.monotonic() - begun < 2 + lookup.MAX_SILENT
    finally:
        for evil, _ in liars:
            evil.transport.close()


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


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"\0" * 21,
        b"\2" + b"\0" * 40,
        b"\0" * 21 + msgspec.msgpack.encode(["ping", []]),
        b"\0" * 21 + msgspec.msgpack.encode(["ping", [b"short"]]),
        b"\0" * 21 + msgspec.msgpack.encode(["close", [b"\0" * 20]]),
        b"\0" * 21 + msgspec.msgpack.encode(["_answer", [b"\0" * 20]]),
        b"\0" * 21 + msgspec.msgpack.encode(["find_value", [b"\0" * 20, b"\0" * 21]]),
        b"\0" * 21 + msgspec.msgpack.encode(["store", [b"\0" * 20] * 3]),
        b"\0" * 21 + msgspec.msgpack.encode(["store", [b"\0" * 20] * 9]),
        b"\0" * 21 + b"\x92" * 8000,
        b"\1" + b"\0" * 8000,
    ],
    ids=range(13),
)
async def test_any_datagram_is_stood(start: Start, net: str, datagram: bytes) -> None:
    first, address = await start(1)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        stranger.bind((f"{net}.9", 0))
        for _ in range(20):
            stranger.sendto(datagram, address)
        await asyncio.sleep(0.05)
    assert (await start(2, [address]))[0].known
    await settled([first])


async def test_a_flood_of_questions_gets_a_trickle(start: Start, net: str) -> None:
    """The one in whose name it is asked is not sent more than it can bear, and others are still served."""
    _, address = await start(1)
    for number in range(2, 10):
        await start(number, [address])
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        stranger.bind((f"{net}.99", 0))
        stranger.setblocking(False)
        question = wire.question(b"\0" * 20, "find_node", b"\1" * 20, PLACE)
        for _ in range(100):
            for _ in range(20):
                stranger.sendto(question, address)
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        got = 0
        while True:
            try:
                got += len(stranger.recv(65_536))
            except BlockingIOError:
                break
    assert 0 < got < 300 * 400, "two thousand questions"
    assert (await start(50, [address]))[0].known


async def test_a_search_is_not_kept_waiting_by_those_who_lie_of_neighbours(start: Start, net: str) -> None:
    """What the seed does: nothing that a liar says of others delays what it is told by an honest one."""
    honest, address = await start(1)
    honest.own[PLACE] = {f"{net}.1": signed(f"{net}.1")}
    evil, at = await lie(f"{net}.66", find_node=endless, find_value=endless)
    queue: SimpleQueue[Heard] = SimpleQueue()
    search = Search("stable", "x86_64", [at, address], queue, clock=time.time)
    try:
        found = await asyncio.to_thread(queue.get, timeout=4)
        assert found.provider.url == f"http://{net}.1:8080"
    finally:
        await asyncio.to_thread(search.close)
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


async def test_a_stranger_who_never_answers_silences_nobody(start: Start, net: str) -> None:
    """From many ports of one host; those who announce are still heard."""
    first, address = await start(1)
    with contextlib.ExitStack() as stack:
        for port in range(40):
            stranger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stranger.bind((f"{net}.99", 0))
            stranger.sendto(wire.question(os.urandom(20), "ping", bytes([port]) * 20), address)
        await asyncio.sleep(0.05)
        assert len(first._greeted) <= 2
        honest, _ = await start(2, [address])
        assert await honest.announce(PLACE, signed(f"{net}.2")) == 1


async def test_one_node_does_not_fill_a_search(start: Start, net: str) -> None:
    many = [signed(f"192.0.2.{number}", seed=number) for number in range(1, 17)]
    evil, at = await lie(f"{net}.66", find_node=[], find_value={"value": many})
    try:
        looker, _ = await start(3, serves=False)
        await looker.reach([at])
        assert len(await found(looker)) == 8
    finally:
        evil.transport.close()


async def test_an_answer_is_small_and_a_full_place_is_found_all_the_same(start: Start, net: str) -> None:
    keeper, address = await start(1)
    for number in range(2, 18):
        envelope = signed(f"{net}.{number}", seed=number)
        keeper.held.put(PLACE, envelope, sender=(f"{net}.{number}", 8080), now=time.time())
    looker, _ = await start(30, serves=False)
    await looker.reach([address])
    hosts: set[str] = set()
    for _ in range(20):
        said = await looker._endpoint.ask(address, wire.Values, "find_value", looker.id, PLACE)
        assert len(msgspec.msgpack.encode(said)) < 6000
        hosts |= {one.host for one in await found(looker)}
    assert len(hosts) == 16


class Spoofed(asyncio.DatagramProtocol):
    """Who is named as the sender of others' datagrams: counts what comes, and answers nothing."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.append(data)


async def spoofed(host: str) -> tuple[asyncio.DatagramTransport, Spoofed]:
    return await asyncio.get_running_loop().create_datagram_endpoint(Spoofed, local_addr=(host, 0))


def full_of(one: Dht, net: str) -> None:
    """A table and a place that are as full as they get."""
    for number in range(100, 125):
        one._table.add(wire.Contact(os.urandom(20), f"{net}.{number}", 4000))
    now = time.time()
    for number in range(1, 17):
        envelope = signed(f"{net}.{number}", seed=number)
        one.held.put(PLACE, envelope, sender=(f"{net}.{number}", 8080), now=now)


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("find_value", (os.urandom(20), PLACE)),
        ("find_node", (os.urandom(20), PLACE)),
        ("store", (os.urandom(20), PLACE, b"x" * 300)),
        ("ping", (os.urandom(20),)),
        ("stun", ()),
    ],
)
async def test_answers_to_strangers_are_at_most_three_times_what_they_sent(
    start: Start, net: str, name: str, arguments: tuple[bytes, ...], times: int
) -> None:
    """Whatever is asked, and however often, until the address has answered once."""
    node_, address = await start(1)
    full_of(node_, net)
    victim, counted = await spoofed(f"{net}.9")
    try:
        sent = 0
        for _ in range(times):
            question = wire.question(os.urandom(20), name, *arguments)
            sent += len(question)
            victim.sendto(question, address)
            await asyncio.sleep(0.6 / times)
        await settled([node_])
        await asyncio.sleep(0.1)
        assert sum(len(each) for each in counted.got) <= 3 * sent, [len(each) for each in counted.got]
        assert counted.got, "the question was not understood"
    finally:
        victim.close()


async def test_who_has_answered_once_gets_the_whole_answer(start: Start, net: str) -> None:
    """A looker, and another node: what was cut for strangers is whole for both, at the first question."""
    node_, address = await start(1)
    full_of(node_, net)
    for number, serves in ((20, False), (21, True)):
        asker, _ = await start(number, serves=serves)
        begun = time.monotonic()
        said = await asker._endpoint.ask(address, wire.Found, "find_value", asker.id, PLACE)
        assert isinstance(said, wire.Values)
        assert len(said.envelopes) == 8
        assert time.monotonic() - begun < 1
    # Who only looks has proven its address, and is nobody's neighbour for that.
    await settled([node_])
    assert not any(contact.host == f"{net}.20" for contact in node_.known)


async def test_who_only_looks_answers_nobody_it_has_not_asked(start: Start, net: str) -> None:
    looker = Dht(serves=False)
    at = f"{net}.30", await looker.start(f"{net}.30", 0)
    stranger, counted = await spoofed(f"{net}.9")
    try:
        for name in ("ping", "stun", "find_node"):
            stranger.sendto(wire.question(os.urandom(20), name, os.urandom(20), PLACE), at)
        await asyncio.sleep(0.2)
        assert counted.got == []
    finally:
        stranger.close()
        looker.close()


async def test_an_echo_of_our_own_questions_ends(start: Start, net: str) -> None:
    """A port that sends back all that it gets, and one's own address named as the sender."""
    node_, address = await start(1)

    class Echo(Spoofed):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.got.append(data)
            if len(self.got) < 500:
                transport.sendto(data, addr)

    transport, echo = await asyncio.get_running_loop().create_datagram_endpoint(
        Echo, local_addr=(f"{net}.7", 0)
    )
    try:
        transport.sendto(wire.question(os.urandom(20), "find_node", os.urandom(20), PLACE), address)
        for data in (
            wire.question(os.urandom(20), "ping", os.urandom(20)),
            wire.answer(os.urandom(20), b""),
        ):
            node_._endpoint.datagram_received(data, address)
        await asyncio.sleep(0.3)
        await settled([node_])
        assert len(echo.got) < 20
        assert node_.known == []
    finally:
        transport.close()


async def test_a_far_node_names_no_address_of_this_machine(start: Start, net: str) -> None:
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
        looker._search = search  # type: ignore[method-assign,assignment]
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
