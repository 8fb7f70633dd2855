"""What an endpoint sends and believes, datagram by datagram (`phase.discovery.dht.endpoint`)."""

import asyncio
import os
from typing import Any

import msgspec
import pytest

from phase.discovery.dht import endpoint, wire
from phase.discovery.dht.endpoint import AMPLIFICATION, Endpoint

OTHER, THIRD = ("192.0.2.1", 4000), ("192.0.2.2", 4000)
ID = b"i" * 20


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sent(asyncio.DatagramTransport):
    """Takes what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: list[tuple[bytes, tuple[str, int]]] = []
        self.closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.datagrams.append((data, addr))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(endpoint, "monotonic", one)
    return one


def made(answerer: Any = None) -> tuple[Endpoint, Sent]:
    one, sent = Endpoint(answerer), Sent()
    one.connection_made(sent)
    return one, sent


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def asking(one: Endpoint, address: tuple[str, int] = OTHER, type_: Any = bytes) -> "asyncio.Task[Any]":
    task = asyncio.ensure_future(one.ask(address, type_, "ping", ID))
    await turns()
    return task


async def test_a_question_is_asked_once_and_its_answer_given(clock: Clock) -> None:
    one, sent = made()
    task = await asking(one)
    ((data, to),) = sent.datagrams
    assert to == OTHER
    assert (data[:1], msgspec.msgpack.decode(data[21:])) == (b"\0", ["ping", [ID]])
    one.datagram_received(wire.answer(data[1:21], b"said"), OTHER)
    one.datagram_received(wire.answer(data[1:21], b"too late"), OTHER)
    assert await task == b"said"
    assert not one._asked


@pytest.mark.parametrize(
    ("change", "sender"),
    [
        (lambda data: data, THIRD),
        (lambda data: data, (OTHER[0], 4001)),
        (lambda data: data[:1] + b"x" * 20 + data[21:], OTHER),
        (lambda data: b"\0" + data[1:], OTHER),
    ],
)
async def test_only_who_was_asked_answers(clock: Clock, change: Any, sender: tuple[str, int]) -> None:
    one, sent = made()
    task = await asking(one)
    number = sent.datagrams[0][0][1:21]
    one.datagram_received(change(wire.answer(number, b"forged")), sender)
    await turns()
    assert not task.done()
    assert not one.is_proven(sender)
    one.datagram_received(wire.answer(number, b"true"), OTHER)
    assert await task == b"true"


@pytest.mark.parametrize("said", [5, "text", [1]])
async def test_an_answer_of_another_type_is_none(clock: Clock, said: object) -> None:
    one, sent = made()
    task = await asking(one)
    one.datagram_received(wire.answer(sent.datagrams[0][0][1:21], said), OTHER)
    assert await task is None
    assert one.is_proven(OTHER), "it is there, whatever it says"


async def test_who_never_answers_is_waited_for_so_long(clock: Clock) -> None:
    one, _ = made()
    assert await one.ask(OTHER, bytes, "ping", ID, seconds=0.01) is None
    assert not one._asked
    one.close()
    assert await one.ask(OTHER, bytes, "ping", ID, seconds=60) is None


async def test_an_address_is_proven_for_two_minutes(clock: Clock) -> None:
    one, sent = made()
    assert not one.is_proven(OTHER)
    task = await asking(one)
    one.datagram_received(wire.answer(sent.datagrams[0][0][1:21], b""), OTHER)
    await task
    assert one.is_proven(OTHER)
    assert not one.is_proven((OTHER[0], 4001))
    clock.now += endpoint.PROVEN_SECONDS - 0.001
    assert one.is_proven(OTHER)
    clock.now += 0.001
    assert not one.is_proven(OTHER)


async def test_who_only_looks_answers_a_ping_just_after_it_asked(clock: Clock) -> None:
    one, sent = made()
    ping = wire.question(b"p" * 20, "ping", ID)
    one.datagram_received(ping, OTHER)
    assert sent.datagrams == []
    task = await asking(one)
    sent.datagrams.clear()
    one.datagram_received(wire.question(b"q" * 20, "stun"), OTHER)
    one.datagram_received(ping, THIRD)
    clock.now += 4.9
    one.datagram_received(ping, OTHER)
    assert sent.datagrams == [(wire.answer(b"p" * 20, b""), OTHER)]
    clock.now += 0.2
    one.datagram_received(ping, OTHER)
    assert len(sent.datagrams) == 1
    task.cancel()


async def test_a_stranger_gets_three_times_what_it_sent(clock: Clock) -> None:
    async def answerer(address: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        return b"x" * 20

    one, sent = made(answerer)
    question = wire.question(os.urandom(20), "ping", ID)
    size = len(wire.answer(b"n" * 20, b"x" * 20))
    assert one._credit.get(OTHER[0], 0) == 0
    one.datagram_received(question, OTHER)
    assert one._credit[OTHER[0]] == AMPLIFICATION * len(question)
    await turns()
    assert [to for _, to in sent.datagrams] == [OTHER]
    left = AMPLIFICATION * len(question) - size
    assert one._credit[OTHER[0]] == left
    body = left - 1 - wire.ID_BYTES
    fits = b"y" * (body - 2)
    assert one.fits(OTHER, fits)
    assert not one.fits(OTHER, fits + b"y")
    # The same for questions: another may have sent in its name.
    assert one._may_ask(OTHER, left)
    assert not one._may_ask(OTHER, left + 1)
    assert one._may_ask(THIRD, 10_000)
    # Who has answered may get anything.
    task = await asking(one)
    one.datagram_received(wire.answer(sent.datagrams[-1][0][1:21], b""), OTHER)
    await task
    assert OTHER[0] not in one._credit
    assert one.fits(OTHER, bytes(9000))
    assert not one.fits(THIRD, b"")


async def test_only_so_many_are_answered_at_the_same_time(clock: Clock) -> None:
    wait = asyncio.Event()
    seen: list[str] = []

    async def answerer(address: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        seen.append(address[0])
        await wait.wait()
        return None

    one, sent = made(answerer)
    for number in range(70):
        one.datagram_received(wire.question(os.urandom(20), "ping", ID), (f"198.51.100.{number}", 9))
    await turns()
    assert len(seen) == 64
    wait.set()
    await turns()
    assert not one._answering
    assert sent.datagrams == []
    one.datagram_received(wire.question(os.urandom(20), "ping", ID), OTHER)
    await turns()
    assert seen[-1] == OTHER[0]


async def test_one_host_asks_two_hundred_times_then_fifty_a_second(clock: Clock) -> None:
    seen: list[str] = []

    async def answerer(address: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        seen.append(name)
        return None

    one, _ = made(answerer)

    async def times(count: int) -> int:
        seen.clear()
        for _ in range(count):
            one.datagram_received(wire.question(os.urandom(20), "ping", ID), OTHER)
            await turns()
        return len(seen)

    assert await times(210) == 200
    clock.now += 0.5
    assert await times(40) == 25


async def test_a_host_gets_so_many_bytes_and_a_closed_node_says_nothing(clock: Clock) -> None:
    async def answerer(address: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        return bytes(6000)

    one, sent = made(answerer)
    task = await asking(one)
    one.datagram_received(wire.answer(sent.datagrams[0][0][1:21], b""), OTHER)
    await task
    sent.datagrams.clear()

    async def ask() -> int:
        one.datagram_received(wire.question(os.urandom(20), "ping", ID), OTHER)
        await turns()
        return len(sent.datagrams)

    assert [await ask() for _ in range(12)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]
    clock.now += 0.9
    assert await ask() == 11
    sent.closed = True
    clock.now += 5
    assert await ask() == 11


async def test_what_is_remembered_has_a_limit(clock: Clock) -> None:
    one, _ = made()
    for number in range(1100):
        one.datagram_received(
            wire.question(os.urandom(20), "stun"), (f"10.0.{number >> 8}.{number & 255}", 9)
        )
    assert len(one._credit) == 1024
    assert "10.0.0.0" not in one._credit
    assert "10.0.4.75" in one._credit


async def test_nobody_is_answered_at_port_zero(clock: Clock) -> None:
    called: list[object] = []

    async def answerer(address: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        called.append(address)
        return None

    one, _ = made(answerer)
    one.datagram_received(wire.question(os.urandom(20), "ping", ID), ("192.0.2.1", 0))
    await turns()
    assert called == []
