"""Connections of a client: one to each node, made anew once it has ended, and none waits for another."""

import asyncio
from typing import cast

import pytest

from phase.client import Client, RejectedError
from phase.peer.errors import ConnectionLostError, PeerError, RefusedError, UnreachableError
from phase.peer.messages import Jobs, Reason, frame
from phase.peer.transport import Address, Code, Transport

ONE, TWO = (Address(digit * 64, ("127.0.0.1:1",)) for digit in "ab")


class _Stream:
    """Answers that there is no job."""

    def __init__(self) -> None:
        self._left = frame(Jobs(jobs=()))

    async def send(self, data: bytes) -> None: ...

    async def receive(self, most: int) -> bytes:
        part, self._left = self._left, b""
        return part

    async def finish(self) -> None: ...

    async def reset(self, code: int) -> None: ...


class _Connection:
    def __init__(self, error: PeerError | None = None) -> None:
        self._error = error

    async def open(self) -> _Stream:
        if self._error is not None:
            raise self._error
        return _Stream()

    async def close(self) -> None: ...


class _Transport:
    """Connects as it was told: to errors, and to connections."""

    key = "c" * 64

    def __init__(self, *said: PeerError | _Connection) -> None:
        self._said = list(said)
        self.asked: list[Address] = []
        self.slow: dict[str, asyncio.Event] = {}

    async def connect(self, address: Address, seconds: float) -> _Connection:
        self.asked.append(address)
        if address.key in self.slow:
            await self.slow[address.key].wait()
        said = self._said.pop(0) if self._said else _Connection()
        if isinstance(said, PeerError):
            raise said
        return said

    def client(self) -> Client:
        return Client(cast(Transport, self))


async def test_a_connection_is_kept_for_each_node() -> None:
    transport = _Transport()
    client = transport.client()
    for node in (ONE, TWO, ONE, TWO):
        assert await client.jobs(node) == ()
    assert transport.asked == [ONE, TWO]
    await client.close()
    assert await client.jobs(ONE) == ()
    assert transport.asked == [ONE, TWO, ONE]


async def test_all_that_ask_at_once_share_one_connection() -> None:
    transport = _Transport()
    client = transport.client()
    await asyncio.gather(*(client.jobs(ONE) for _ in range(5)))
    assert transport.asked == [ONE]


async def test_a_node_that_is_slow_to_connect_holds_up_no_other() -> None:
    transport = _Transport()
    transport.slow[ONE.key] = asyncio.Event()
    client = transport.client()
    waiting = asyncio.ensure_future(client.jobs(ONE))
    async with asyncio.timeout(10):
        assert await client.jobs(TWO) == ()
        transport.slow[ONE.key].set()
        assert await waiting == ()


async def test_a_connection_that_has_ended_is_made_anew_once() -> None:
    gone = ConnectionLostError("it has ended")
    transport = _Transport(_Connection(gone), _Connection())
    assert await transport.client().jobs(ONE) == ()
    assert transport.asked == [ONE, ONE]
    transport = _Transport(_Connection(gone), _Connection(gone))
    with pytest.raises(ConnectionLostError):
        await transport.client().jobs(ONE)
    assert transport.asked == [ONE, ONE]


@pytest.mark.parametrize(
    ("code", "reason"), [(Code.REFUSED, Reason.NOT_AUTHORISED), (Code.BUSY, Reason.QUOTA)]
)
@pytest.mark.parametrize("when", ["connecting", "opening"])
async def test_a_peer_that_refuses_is_a_node_that_refuses(code: Code, reason: Reason, when: str) -> None:
    """Whoever spreads jobs goes to another node by it."""
    refused = RefusedError("no", code)
    said = refused if when == "connecting" else _Connection(refused)
    with pytest.raises(RejectedError) as caught:
        await _Transport(said).client().jobs(ONE)
    assert caught.value.reason is reason


async def test_a_peer_that_is_not_there_is_no_node_that_refuses() -> None:
    with pytest.raises(UnreachableError):
        await _Transport(UnreachableError("no way")).client().jobs(ONE)
