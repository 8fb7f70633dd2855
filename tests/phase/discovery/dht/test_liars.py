"""Nodes on loopback that lie (`phase.discovery.dht.node`, `lookup`): they hide nothing and delay nothing."""

import asyncio
import contextlib
import os
import socket
import time
from queue import SimpleQueue

import pytest

from fixtures.hostile.dht import LIES, VICTIM, Lie, Town
from phase.discovery.dht import Search, announcement, endpoint, lookup, wire
from phase.discovery.dht.node import ALPHA
from phase.discovery.dht.table import MAX_OF_HOST
from phase.discovery.records import Heard
from tests.phase.discovery.dht.conftest import Start
from tests.phase.discovery.dht.nodes import PLACE, endless, found, lie, settled, signed


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


#: What only a node can tell that hears it from the host itself, or has heard more before.
HINTS = {
    "dht-replayed",
    "dht-another-host",
    "dht-for-ever",
    "dht-in-advance",
    "dht-third-of-one-host",
    "dht-full-place",
}


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


async def test_a_crowd_around_a_place_keeps_nothing_from_it(start: Start, net: str) -> None:
    """Thirty hosts with ids that differ from the place in the last bits: they are not given it."""
    first, address = await start(1)
    honest = [first] + [(await start(number, [address]))[0] for number in range(2, 6)]
    liars = [await lie(f"{net}.{100 + n}", store=True) for n in range(30)]
    for number, (evil, _) in enumerate(liars):
        evil.id = PLACE[:19] + bytes((PLACE[19] ^ number,))
    crowd = [(evil.id, *at) for evil, at in liars]
    for evil, _ in liars:
        evil.answers |= {"find_value": crowd[:20], "find_node": crowd[:20]}
    try:
        for one in honest:
            for _, at in liars:
                await one.reach([at])
        await honest[0].announce(PLACE, signed(f"{net}.1"))
        assert all(len(one.held) == 1 for one in honest[1:])
        looker, _ = await start(9, serves=False)
        await looker.reach([address])
        assert [one.url for one in await found(looker)] == [f"http://{net}.1:8080"]
    finally:
        for evil, _ in liars:
            evil.transport.close()


async def test_silent_nodes_do_not_hold_up_a_search(
    start: Start, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are asked at a time say nothing, for longer than the test may take."""
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 600.0)
    honest, address = await start(1)
    honest.own[PLACE] = {f"{net}.1": signed(f"{net}.1")}
    # So that it is asked last.
    honest.id = os.urandom(20)
    looker, _ = await start(3, serves=False)
    await looker.reach([address])
    silent = [await lie(f"{net}.{50 + n}") for n in range(ALPHA)]
    for evil, at in silent:
        evil.id = wire.id_at(at[0])
        await looker.reach([at])
    assert len(looker.known) == ALPHA + 1
    heard = asyncio.Event()
    task = asyncio.ensure_future(looker.look(PLACE, lambda said: heard.set()))
    try:
        await asyncio.wait_for(heard.wait(), 60)
    finally:
        task.cancel()
        for evil, _ in silent:
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
