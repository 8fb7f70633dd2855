"""How much a node answers (`phase.discovery.dht.endpoint`), and to whom."""

import asyncio
import os
import socket
import time

import msgspec
import pytest

from phase.discovery.dht import wire
from phase.discovery.dht.node import Dht
from tests.phase.discovery.dht.conftest import Start
from tests.phase.discovery.dht.nodes import PLACE, found, settled, signed


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
        # A part of the neighbours is better than none.
        assert name != "find_node" or any(each[0] == wire.ANSWER for each in counted.got)
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
