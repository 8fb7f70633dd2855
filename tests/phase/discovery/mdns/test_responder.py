"""A provider among others on loopback: claims its names, answers, and gives way."""

import asyncio
import errno
import ipaddress
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from zeroconf import ServiceInfo, Zeroconf

from phase.discovery import discover
from phase.discovery.interfaces import Interface, interfaces
from phase.discovery.mdns import link, responder, wire
from phase.discovery.mdns.claims import Offer, claims
from phase.discovery.mdns.link import Progress, State
from phase.discovery.mdns.responder import Responder
from phase.discovery.mdns.sockets import Socket
from phase.discovery.mdns.wire import SERVICE_NAME, Question, Record
from phase.discovery.records import SERVICE
from phase.provider.advertise import chooser


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PROBE_SECONDS", 0.03)


def loopback() -> Interface:
    return next(each for each in interfaces() if each.loopback)


@asynccontextmanager
async def providing(channel: str, identity: str = "") -> AsyncIterator[Responder]:
    """A provider that is told of on loopback."""
    made = Responder(port=8099, identity=identity or secrets.token_hex(4), choose=chooser(["127.0.0.1"]))
    made.offer([Offer(channel, "x86_64", 1)])
    task = asyncio.create_task(made.run(lambda: None, 1.0))
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


class Stranger:
    """Another machine on that network, which can be told to answer."""

    def __init__(self, answer: Callable[[wire.Packet], list[Record]]) -> None:
        self.heard: list[wire.Packet] = []
        self._answer = answer
        self._socket = Socket(loopback(), 4)

    def _read(self) -> None:
        while (datagram := self._socket.receive()) is not None:
            packet = wire.parse(datagram.data)
            if packet is not None:
                self.heard.append(packet)
                if not packet.response:
                    self.say(self._answer(packet))

    def say(self, records: list[Record]) -> None:
        for data in wire.responses(records):
            self._socket.multicast(data)

    async def __aenter__(self) -> "Stranger":
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


async def until(done: Callable[[], object], what: object = None) -> None:
    end = monotonic() + 20
    while not done():
        assert monotonic() < end, what
        await asyncio.sleep(0.01)


def taken(packet: wire.Packet, channel: str, times: float, ttl: int = 1 << 31) -> list[Record]:
    """Say that the names somebody probes for have an owner."""
    return [
        Record(record.name, record.type, wire.pack_srv(1, (b"mine", b"local")), ttl, True)
        for record in packet.authorities
        if record.type == wire.SRV and channel.encode() in record.name[0] and times > 0
    ]


async def test_told_found_and_gone(channel: str) -> None:
    async with providing(channel, "cafe0001") as provider:
        await until(lambda: provider.instances)
        assert provider.instances == [f"phase-{channel}-x86_64-cafe0001.{SERVICE}"]
        assert provider.problem == ""
        assert [(each.name, each.addresses, each.state) for each in provider.told] == [
            ("lo", ("127.0.0.1",), State(Progress.ANSWERING))
        ]
        found = await asyncio.to_thread(lambda: list(discover(channel, "x86_64", timeout=10, gather=0.0)))
        assert [(each.url, each.version) for each in found] == [("http://127.0.0.1:8099", 1)]
        provider.offer([Offer(channel, "x86_64", 2)])

        def newer() -> bool:
            return [each.version for each in discover(channel, "x86_64", timeout=10, gather=0.0)] == [2]

        for _ in range(20):
            if await asyncio.to_thread(newer):
                break
        else:
            raise AssertionError(provider.claims)
    assert await asyncio.to_thread(lambda: list(discover(channel, "x86_64", timeout=0.3))) == []


async def test_a_goodbye_is_said(channel: str) -> None:
    async with Stranger(lambda packet: []) as stranger:
        async with providing(channel) as provider:
            await until(lambda: provider.instances)
            own = wire.pack_name(provider.claims.instances[0][0])

        def gone() -> bool:
            return any(
                record.data == own and not record.ttl
                for packet in stranger.heard
                for record in packet.answers
            )

        await until(gone)


async def test_a_conflict_in_mdns_makes_it_take_another_name(channel: str) -> None:
    """One answer, with a TTL of 2^31, to the first probe of its name."""
    left = [1]

    def answer(packet: wire.Packet) -> list[Record]:
        said = taken(packet, channel, left[0])
        left[0] -= bool(said)
        return said

    async with Stranger(answer), providing(channel, "cafe0002") as provider:
        await until(lambda: provider.instances, provider.problem)
        assert provider.instances == [f"phase-{channel}-x86_64-cafe0002-2.{SERVICE}"]
        assert provider.problem == ""
        found = await asyncio.to_thread(lambda: list(discover(channel, "x86_64", timeout=10, gather=0.0)))
        assert [each.id for each in found] == ["cafe0002"]


async def test_who_claims_every_name_is_named_and_hides_nobody(
    channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After five names in a row it answers for a random one, and says so."""

    def claim(packet: wire.Packet) -> list[Record]:
        return taken(packet, channel, 1)

    async with Stranger(claim) as stranger, providing(channel, "cafe0006") as provider:
        await until(lambda: provider.instances, provider)
        assert "127.0.0.1 says that the name" in provider.problem
        assert "after 4 others" in provider.problem
        tried = {record.name for packet in stranger.heard for record in packet.authorities}
        assert sum(channel.encode() in name[0] for name in tried) == responder.QUICK_NAMES
        # Also when it says later on that this one is its own.
        name = provider.claims.instances[0][0]
        stranger.say([Record(name, wire.SRV, wire.pack_srv(1, (b"mine", b"local")), 120, True)])
        found = await asyncio.to_thread(lambda: list(discover(channel, "x86_64", timeout=10, gather=0.0)))
        assert [each.id for each in found] == ["cafe0006"]
        assert provider.claims.instances[0][0] == name
        assert "the next is" in caplog.text


async def test_a_goodbye_in_answer_to_a_probe_is_no_conflict(channel: str) -> None:
    async with Stranger(lambda packet: taken(packet, channel, 1, ttl=0)), providing(channel) as provider:
        await until(lambda: provider.instances)
        assert "-2." not in provider.instances[0]


async def test_a_conflict_later_on_makes_it_ask_anew(channel: str) -> None:
    left = [0]

    def answer(packet: wire.Packet) -> list[Record]:
        said = taken(packet, channel, left[0])
        left[0] -= bool(said)
        return said

    async with Stranger(answer) as stranger, providing(channel) as provider:
        await until(lambda: provider.instances)
        first = provider.instances
        name = provider.claims.instances[0][0]
        # Who only says so does not get the name.
        other = Record(name, wire.SRV, wire.pack_srv(1, (b"mine", b"local")), 120, True)
        stranger.heard.clear()
        stranger.say([other])
        await until(lambda: any(packet.authorities for packet in stranger.heard))
        assert provider.instances == first
        # Who also says so when asked does.
        await until(lambda: provider.told[0].state.progress is Progress.ANSWERING)
        left[0] = 1
        for each in provider._links.values():
            each._defended = -1e9
        stranger.say([other])
        await until(lambda: any("-2." in each for each in provider.instances))


async def test_what_another_takes_back_is_said_again(channel: str) -> None:
    """A goodbye of our own record, by somebody else."""
    async with Stranger(lambda packet: []) as stranger, providing(channel) as provider:
        await until(lambda: provider.instances)
        await asyncio.sleep(1.2)  # its second announcement is over
        stranger.heard.clear()
        name = provider.claims.instances[0][0]
        stranger.say([Record(SERVICE_NAME, wire.PTR, wire.pack_name(name), 0)])
        own = wire.pack_name(name)

        def again() -> bool:
            records = [record for packet in stranger.heard for record in packet.answers]
            return any(record.data == own and record.ttl for record in records)

        await until(again)


async def test_questions_make_one_answer_a_second(channel: str) -> None:
    async with Stranger(lambda packet: []) as stranger, providing(channel) as provider:
        await until(lambda: provider.instances)
        await asyncio.sleep(1.2)
        stranger.heard.clear()
        own = wire.pack_name(provider.claims.instances[0][0])
        question = wire.query([Question(SERVICE_NAME, wire.PTR)])

        def said() -> int:
            return sum(any(record.data == own for record in packet.answers) for packet in stranger.heard)

        begun, asked = monotonic(), 0
        while not said() or asked < 200:
            stranger._socket.multicast(question)
            asked += 1
            await asyncio.sleep(0.002)
            assert monotonic() < begun + 20
        assert said() <= 2 + (monotonic() - begun)


async def test_who_knows_the_answer_is_not_answered(channel: str) -> None:
    async with Stranger(lambda packet: []) as stranger, providing(channel) as provider:
        await until(lambda: provider.instances)
        await asyncio.sleep(1.2)
        stranger.heard.clear()
        name = provider.claims.instances[0][0]
        known = Record(SERVICE_NAME, wire.PTR, wire.pack_name(name), 4000)
        stranger._socket.multicast(wire.query([Question(SERVICE_NAME, wire.PTR)], [known]))
        await asyncio.sleep(0.3)
        records = [record for packet in stranger.heard if packet.response for record in packet.answers]
        assert wire.pack_name(name) not in [record.data for record in records]


async def test_who_asks_from_another_port_is_answered_alone(channel: str) -> None:
    """A program of ordinary DNS (section 6.7): its number and question come back, and short lives."""
    async with providing(channel) as provider:
        await until(lambda: provider.instances)
        name = provider.claims.instances[0][0]
        with Socket(loopback(), 4, port=0) as asking:
            question = wire.query([Question(name, wire.SRV)])
            asking.multicast(b"\x12\x34" + question[2:])
            heard: list[wire.Packet] = []

            def answered() -> bool:
                datagram = asking.receive()
                packet = wire.parse(datagram.data) if datagram else None
                heard.extend([packet] if packet else [])
                return bool(heard)

            await until(answered)
        (packet,) = heard
        assert (packet.number, packet.questions) == (0x1234, [Question(name, wire.SRV)])
        assert {each.type for each in packet.answers} == {wire.SRV}
        assert all(each.ttl <= 10 and not each.unique for each in (*packet.answers, *packet.additionals))


async def test_of_two_that_probe_for_one_name_one_has_it(channel: str) -> None:
    """Two processes with one identity, started together."""
    async with providing(channel, "cafe0003") as one, providing(channel, "cafe0003") as other:
        other._port = 8098
        other._claim_anew()
        await until(lambda: one.instances and other.instances, (one.problem, other.problem))
        await until(lambda: one.instances != other.instances, (one.instances, other.instances))


async def test_others_are_seen_and_seen_to_go(channel: str) -> None:
    async with providing(channel) as one:
        async with providing(channel) as other:
            await until(lambda: set(other.instances) & one.seen)
            (name,) = other.instances
        await until(lambda: name not in one.seen)


async def test_a_flood_of_neighbours_takes_no_memory_and_hides_nobody() -> None:
    made = Responder(port=1, identity="cafe0004", choose=lambda here: {})
    flooder, honest = (ipaddress.ip_address(ip) for ip in ("192.0.2.66", "192.0.2.7"))
    for number in range(1000):
        made.heard((b"%d" % number, *SERVICE_NAME), 1 << 31, flooder)
    made.heard((b"honest", *SERVICE_NAME), 120, honest)
    assert f"honest.{SERVICE}" in made.seen
    for number in range(1000):
        made.heard((b"%d" % number, *SERVICE_NAME), 1 << 31, ipaddress.ip_address(number))
    assert len(made.seen) <= responder.MAX_SEEN


async def test_another_library_finds_it(channel: str) -> None:
    async with providing(channel, "cafe0005") as provider:
        await until(lambda: provider.instances)

        def ask() -> ServiceInfo | None:
            asking = Zeroconf(interfaces=["127.0.0.1"])
            try:
                return asking.get_service_info(SERVICE, f"phase-{channel}-x86_64-cafe0005.{SERVICE}", 5000)
            finally:
                asking.close()

        info = await asyncio.to_thread(ask)
        assert info is not None
        assert (info.parsed_addresses(), info.port) == (["127.0.0.1"], 8099)
        assert info.properties[b"channel"] == channel.encode()


def test_what_another_library_tells_is_found(channel: str) -> None:
    """As providers of older versions do."""
    properties = {"txtvers": "1", "channel": channel, "arch": "x86_64", "version": "3", "id": "old"}
    telling = Zeroconf(interfaces=["127.0.0.1"])
    try:
        name = f"phase-{channel}-x86_64-{secrets.token_hex(4)}.{SERVICE}"
        telling.register_service(
            ServiceInfo(
                SERVICE,
                name,
                port=8077,
                addresses=[b"\x7f\0\0\1"],
                server=f"{channel}.local.",
                properties=properties,
            )
        )
        found = list(discover(channel, "x86_64", timeout=10, gather=0.0))
        assert [(each.url, each.version) for each in found] == [("http://127.0.0.1:8077", 3)]
    finally:
        telling.close()


def test_claims_are_what_is_offered() -> None:
    assert claims([], port=1, identity="a").instances == ()


async def test_a_firewall_that_comes_and_goes_is_seen(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing else changes: what is said of an interface is true within seconds."""
    blocked, multicast = False, Socket.multicast
    async with providing(channel) as made, Stranger(lambda _: []) as stranger:

        def send(socket: Socket, data: bytes) -> None:
            if blocked and socket is not stranger._socket:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            multicast(socket, data)

        monkeypatch.setattr(Socket, "multicast", send)
        await until(lambda: made.told and made.told[0].state.progress is Progress.ANSWERING)
        await asyncio.sleep(1.2)  # the second announcement
        blocked = True
        multicast(stranger._socket, wire.query([Question(SERVICE_NAME, wire.PTR)]))
        await until(lambda: "nothing can be sent: Operation not permitted" in made.problem, made.told)
        blocked = False
        await until(lambda: made.instances and not made.problem, made.told)
        assert made.told[0].state.progress is Progress.ANSWERING


async def test_a_port_that_another_program_lets_go_is_taken(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*_: object) -> Socket:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    with monkeypatch.context() as patch:
        patch.setattr(link, "Socket", held)
        async with providing(channel) as made:
            await until(lambda: "Address already in use" in made.problem, made.told)
            patch.undo()
            await until(lambda: not made.problem and not made.starting, made.told)


async def test_offers_are_looked_for_again_and_again(channel: str) -> None:
    """While nothing else happens."""
    looked = [0]

    def look() -> None:
        looked[0] += 1

    made = Responder(port=8099, identity=secrets.token_hex(4), choose=chooser(["127.0.0.1"]))
    made.offer([Offer(channel, "x86_64", 1)])
    task = asyncio.create_task(made.run(look, 0.01))
    try:
        await until(lambda: made.instances)
        before = looked[0]
        await until(lambda: looked[0] > before + 5)
    finally:
        task.cancel()
        await asyncio.wait([task])


def losing(channel: str, monkeypatch: pytest.MonkeyPatch, pause: float, times: int) -> Responder:
    """A provider that loses a name so many times."""
    now = [1000.0]
    monkeypatch.setattr(responder, "monotonic", lambda: now[0])
    made = Responder(port=8099, identity="cafe0002", choose=chooser(["127.0.0.1"]))
    made.offer([Offer(channel, "x86_64", 1)])
    for _ in range(times):
        now[0] += pause
        record = Record(made.claims.instances[0][0], wire.SRV, b"", 120, True)
        made.lost(made.claims, record, ipaddress.IPv4Address("192.0.2.9"))
    return made


def test_names_lost_long_ago_do_not_count(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = losing(channel, monkeypatch, 301.0, responder.QUICK_NAMES)
    assert not made.insists
    assert made.claims.instances[0][0][0].endswith(b"-6")
    assert "192.0.2.9 says that the name" in made.problem
    assert losing(channel, monkeypatch, 300.0, responder.QUICK_NAMES).insists
    assert not losing(channel, monkeypatch, 1.0, responder.QUICK_NAMES - 1).insists


def test_a_name_that_was_given_up_is_not_lost_again(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = losing(channel, monkeypatch, 1.0, 1)
    before = made.claims
    old = losing(channel, monkeypatch, 1.0, 0).claims
    made.lost(old, Record(old.instances[0][0], wire.SRV, b"", 120, True), ipaddress.IPv4Address("192.0.2.9"))
    assert made.claims == before


async def test_it_claims_before_it_answers_and_says_so(channel: str) -> None:
    states: list[Progress] = []
    made = Responder(port=8099, identity=secrets.token_hex(4), choose=chooser(["127.0.0.1"]))
    made._changed = lambda: states.extend(each.state.progress for each in made.told)
    task = asyncio.create_task(made.run(lambda: None, 1.0))
    try:
        await until(lambda: made.told)
        await until(lambda: made.told[0].state == State(Progress.HINDERED, "nothing to tell of"), made.told)
        made.offer([Offer(channel, "x86_64", 1)])
        await until(lambda: made.instances)
        order = list(dict.fromkeys(states))
        assert order[-2:] == [Progress.CLAIMING, Progress.ANSWERING]
    finally:
        task.cancel()
        await asyncio.wait([task])
