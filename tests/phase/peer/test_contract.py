"""The rules of `phase.peer.transport`, against every transport."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

import pytest

from phase.identity import Identity
from phase.peer.errors import (
    ConnectionLostError,
    PeerError,
    RefusedError,
    StreamResetError,
    UnreachableError,
)
from phase.peer.iroh import IrohTransport, Options
from phase.peer.memory import Network
from phase.peer.transport import Address, Code, Connection, Stream, Transport

Make = Callable[[], Awaitable[Transport]]
#: More than any transport holds on the way.
LOTS = 64 << 20


class Pair(NamedTuple):
    client: Connection
    server: Connection


async def _memory() -> Make:
    network = Network()

    async def make() -> Transport:
        return network.join()

    return make


async def _iroh() -> Make:
    async def make() -> Transport:
        return await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",)))

    return make


@pytest.fixture(params=[_memory, _iroh])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    inner: Make = await request.param()
    async with AsyncExitStack() as stack:

        async def made() -> Transport:
            transport = await inner()
            stack.push_async_callback(transport.close)
            return transport

        yield made


@pytest.fixture
async def pair(make: Make) -> Pair:
    return await connected(await make(), await make())


async def connected(client: Transport, server: Transport) -> Pair:
    accepted = asyncio.ensure_future(server.accept())
    here = await client.connect(server.address(), 10)
    return Pair(here, await accepted)


async def streams(pair: Pair) -> tuple[Stream, Stream]:
    """A stream, both ends, on which one byte has gone each way."""
    here = await pair.client.open()
    await here.send(b"a")
    there = await pair.server.accept()
    assert await there.receive(10) == b"a"
    return here, there


async def whole(stream: Stream) -> bytes:
    found = b""
    while data := await stream.receive(1 << 16):
        found += data
    return found


async def test_each_end_knows_the_key_of_the_other(make: Make) -> None:
    client, server = await make(), await make()
    pair = await connected(client, server)
    assert (pair.client.peer, pair.server.peer) == (server.key, client.key)
    assert server.address().key == server.key


async def test_request_and_answer(pair: Pair) -> None:
    here = await pair.client.open()
    await here.send(b"ques")
    await here.send(b"tion")
    await here.finish()
    there = await pair.server.accept()
    assert await whole(there) == b"question"
    await there.send(b"answer")
    await there.finish()
    assert await whole(here) == b"answer"
    assert await here.receive(1) == b""


async def test_both_sides_open_streams(pair: Pair) -> None:
    stream = await pair.server.open()
    await stream.send(b"x")
    assert await (await pair.client.accept()).receive(9) == b"x"


async def test_stream_that_is_finished_without_a_byte_arrives(pair: Pair) -> None:
    await (await pair.client.open()).finish()
    assert await (await pair.server.accept()).receive(9) == b""


async def test_no_more_than_asked_for(pair: Pair) -> None:
    here, there = await streams(pair)
    await here.send(b"abcdef")
    await here.finish()
    assert await there.receive(2) == b"ab"
    assert await whole(there) == b"cdef"


async def test_streams_do_not_wait_for_each_other(pair: Pair) -> None:
    stuck, _ = await streams(pair)
    sending = asyncio.ensure_future(stuck.send(bytes(LOTS)))
    here, there = await streams(pair)
    await here.send(b"x")
    assert await there.receive(9) == b"x"
    assert not sending.done()
    sending.cancel()


async def test_sender_waits_for_the_reader(pair: Pair) -> None:
    here, there = await streams(pair)
    sending = asyncio.ensure_future(here.send(bytes(LOTS)))
    done, _ = await asyncio.wait([sending], timeout=1)
    assert not done
    found = 0
    while found < LOTS:
        found += len(await there.receive(1 << 20))
    await sending


async def test_many_streams_one_after_the_other(pair: Pair) -> None:
    for _ in range(300):
        here, there = await streams(pair)
        await here.finish()
        await there.finish()
        assert await whole(here) == await whole(there) == b""


async def test_opening_waits_while_too_many_are_open(pair: Pair) -> None:
    held: list[Stream] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            while len(held) < 5000:
                stream = await pair.client.open()
                await stream.send(b"x")
                held.append(stream)
    assert 0 < len(held) < 5000
    opening = asyncio.ensure_future(pair.client.open())
    for stream in held[: len(held) // 2]:
        await stream.reset(0)
    for _ in held:
        await (await pair.server.accept()).reset(0)
    await asyncio.wait_for(opening, 10)


async def test_reset_reaches_reader_and_writer_with_its_code(pair: Pair) -> None:
    here, there = await streams(pair)
    await here.reset(7)
    with pytest.raises(StreamResetError) as told:
        await there.receive(1)
    assert told.value.code == 7
    with pytest.raises(StreamResetError) as told:
        await send_until_told(there)
    assert told.value.code == 7
    await streams(pair)


async def send_until_told(stream: Stream) -> None:
    while True:
        await stream.send(b"x")
        await asyncio.sleep(0.01)


async def test_reset_wakes_a_sender_that_waits(pair: Pair) -> None:
    here, there = await streams(pair)
    sending = asyncio.ensure_future(here.send(bytes(LOTS)))
    await there.receive(1)
    await there.reset(3)
    with pytest.raises(StreamResetError):
        await sending


async def test_reset_wakes_the_own_calls_that_wait(pair: Pair) -> None:
    here, _ = await streams(pair)
    waiting = [asyncio.ensure_future(each) for each in (here.receive(1), here.send(bytes(LOTS)))]
    await asyncio.wait(waiting, timeout=0.2)
    async with asyncio.timeout(10):
        await here.reset(1)
        for each in waiting:
            with pytest.raises(PeerError):
                await each


async def test_what_was_finished_survives_a_reset_of_the_answer(pair: Pair) -> None:
    here, there = await streams(pair)
    await here.send(b"all")
    await here.finish()
    assert await whole(there) == b"all"
    await there.reset(1)
    with pytest.raises(StreamResetError):
        await here.receive(1)


async def test_close_gives_the_reason_to_everyone(pair: Pair) -> None:
    here, there = await streams(pair)
    waiting = [asyncio.ensure_future(each) for each in (here.receive(1), pair.client.accept())]
    await pair.server.close(Code.DONE, "enough\x1b[2J")
    assert "enough [2J" in await pair.client.closed()
    for each in waiting:
        with pytest.raises(ConnectionLostError, match="enough"):
            await each
    for call in (
        here.send(b"x"),
        here.receive(1),
        pair.client.open(),
        pair.client.accept(),
        there.receive(1),
    ):
        with pytest.raises(ConnectionLostError):
            await call
    await here.reset(0)
    assert "this side" in await pair.server.closed()
    await pair.server.close()
    await pair.client.close()
    assert pair.client.path() is None


@pytest.mark.parametrize("code", [Code.REFUSED, Code.BUSY])
async def test_refusal_is_told_with_its_reason(pair: Pair, code: Code) -> None:
    await pair.server.close(code, "not authorised")
    with pytest.raises(RefusedError, match="not authorised") as caught:
        await pair.client.accept()
    assert caught.value.code == code
    assert "not authorised" in await pair.client.closed()


async def test_a_reason_of_any_length_is_told_in_part(pair: Pair) -> None:
    await pair.server.close(Code.DONE, "ü" * 5000)
    assert "üüü" in await pair.client.closed()


async def test_nobody_with_that_key(make: Make) -> None:
    with pytest.raises(UnreachableError, match="ab" * 32):
        await (await make()).connect(Address("ab" * 32), 2)


async def test_another_key_at_the_right_address(make: Make) -> None:
    client, server = await make(), await make()
    address = server.address()
    with pytest.raises(PeerError):
        await client.connect(Address((await make_away(make)).key, address.hosts), 3)


async def make_away(make: Make) -> Transport:
    """A transport that is gone: its key is a good one, and nobody has it."""
    transport = await make()
    await transport.close()
    return transport


async def test_closed_transport_tells_its_peers_and_accepts_no_more(make: Make) -> None:
    client, server = await make(), await make()
    pair = await connected(client, server)
    waiting = asyncio.ensure_future(server.accept())
    await asyncio.sleep(0)
    await server.close()
    assert await pair.client.closed()
    for call in (waiting, server.accept()):
        with pytest.raises(ConnectionLostError):
            await call
    with pytest.raises(PeerError):
        await client.connect(server.address(), 2)
    with pytest.raises(ConnectionLostError):
        await server.connect(client.address(), 2)
    await server.close()


async def test_the_path_is_known(pair: Pair) -> None:
    path = pair.client.path()
    assert path is not None
    assert path.kind in ("memory", "direct")
    assert path.rtt_seconds >= 0
