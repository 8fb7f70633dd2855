"""Addresses that bring many who may not connect, and those who share them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from phase.identity import Identity
from phase.peer import strangers
from phase.peer.errors import RefusedError
from phase.peer.iroh import IrohTransport, Limits, Options
from phase.peer.strangers import Strangers


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_may_bring_some_and_more_as_time_passes() -> None:
    clock = _Clock()
    known = Strangers(2, 10.0, clock)
    assert not known.too_many("192.0.2.1:5")
    known.came("192.0.2.1:5")
    assert not known.too_many("192.0.2.1:6")
    known.came("192.0.2.1:7")
    assert known.too_many("192.0.2.1:8")
    assert not known.too_many("192.0.2.2:5")
    clock.now += 9.0
    assert known.too_many("192.0.2.1:8")
    clock.now += 1.5
    assert not known.too_many("192.0.2.1:8")
    known.came("192.0.2.1:8")
    assert known.too_many("192.0.2.1:8")
    clock.now += 1000.0
    known.came("192.0.2.1:8")
    assert not known.too_many("192.0.2.1:8")


def test_a_network_of_ipv6_counts_as_one() -> None:
    known = Strangers(2, 10.0, _Clock())
    known.came("[2001:db8::1]:5")
    known.came("[2001:db8::2]:5")
    assert known.too_many("[2001:db8::3]:5")
    assert not known.too_many("[2001:db8:0:1::1]:5")


def test_where_a_friend_has_come_from_all_are_heard() -> None:
    known = Strangers(1, 10.0, _Clock())
    known.came("192.0.2.1:5")
    known.friend("192.0.2.1:6")
    known.came("192.0.2.1:7")
    assert not known.too_many("192.0.2.1:8")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST", 3)
    known = Strangers(1, 10.0, _Clock())
    for number in range(5):
        known.came(f"192.0.2.{number}:5")
        known.friend(f"198.51.100.{number}:5")
    assert (len(known._brought), len(known._friends)) == (3, 3)
    assert [known.too_many(f"192.0.2.{number}:5") for number in (1, 2)] == [False, True]


@asynccontextmanager
async def _peer(
    identity: Identity, host: str, options: Options | None = None
) -> AsyncIterator[IrohTransport]:
    transport = await IrohTransport.start(identity, options or Options(listen=(f"{host}:0",)))
    try:
        yield transport
    finally:
        await transport.close()


async def test_strangers_are_refused_before_the_handshake_and_friends_beside_them_are_not() -> None:
    friend = Identity.ephemeral()
    options = Options(
        listen=("127.0.0.1:0",),
        admit=lambda key: "" if key == friend.public_key else "not one of us",
        limits=Limits(strangers=2, stranger_seconds=1000.0),
    )
    async with (
        _peer(Identity.ephemeral(), "", options) as server,
        _peer(Identity.ephemeral(), "127.0.0.2") as stranger,
        _peer(Identity.ephemeral(), "127.0.0.3") as beside,
        _peer(friend, "127.0.0.3") as known,
    ):
        for _ in range(2):
            await (await stranger.connect(server.address(), 20)).closed()
        with pytest.raises(RefusedError, match="too many connections"):
            await stranger.connect(server.address(), 20)
        assert server.refused == {"not one of us": 2, "too many strangers from one address": 1}
        await known.connect(server.address(), 20)
        await asyncio.wait_for(server.accept(), 20)
        for _ in range(4):
            await (await beside.connect(server.address(), 20)).closed()
        assert server.refused == {"not one of us": 6, "too many strangers from one address": 1}
