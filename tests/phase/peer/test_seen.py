import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from phase.identity import Identity
from phase.peer import seen
from phase.peer.iroh import MAX_SEEN, IrohTransport, Options
from phase.peer.links import IrohConnection


@pytest.mark.parametrize("address", ["192.0.2.1:4433", "[2001:db8::1]:4433", "10.1.2.3:1"])
def test_address_that_a_peer_tells(address: str) -> None:
    assert seen.told(seen.tell(address)) == address


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        seen.BEAT,
        seen.SEEN,
        seen.tell("127.0.0.1:4433"),
        seen.tell("[::1]:4433"),
        seen.tell("0.0.0.0:4433"),
        seen.tell("224.0.0.1:4433"),
        seen.tell("255.255.255.255:4433"),
        seen.tell("169.254.1.1:4433"),
        seen.tell("192.0.2.1:0"),
        seen.tell("192.0.2.1"),
        seen.tell("node.example:4433"),
        seen.SEEN + b"\xff:1",
        b"\2192.0.2.1:4433",
        seen.tell("192.0.2.1:4433" + " " * 100),
    ],
    ids=range(15),
)
def test_what_tells_no_address_that_others_can_use(datagram: bytes) -> None:
    assert seen.told(datagram) == ""


@asynccontextmanager
async def answering(body: bytes, status: int = 200, *, late: int = 0) -> AsyncIterator[str]:
    """Answers like a relay; the first `late` questions with 503."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=body, status=status if asked > late else 503)

    app = web.Application()
    app.router.add_get("/seen", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("body", "status", "found"),
    [
        (b'{"address": "192.0.2.7"}', 200, "192.0.2.7"),
        (b'{"address": "2001:db8::7"}', 200, "2001:db8::7"),
        (b'{"address": "192.0.2.7"}', 404, ""),
        (b'{"address": "127.0.0.1"}', 200, ""),
        (b'{"address": 5}', 200, ""),
        (b"", 200, ""),
        (b" " * 300 + b'{"address": "192.0.2.7"}', 200, ""),
    ],
)
async def test_what_a_relay_answers(body: bytes, status: int, found: str) -> None:
    async with answering(body, status) as url:
        assert await seen.ask(url) == found
        assert await seen.ask(f"{url}/") == found


async def test_relay_that_does_not_answer() -> None:
    assert await seen.ask("http://127.0.0.1:9") == ""


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


async def test_address_that_a_relay_sees_is_told_to_peers() -> None:
    async with answering(b'{"address": "192.0.2.7"}', late=1) as url:
        options = Options(listen=("127.0.0.1:0",), relays=(url,))
        transport = await IrohTransport.start(Identity.ephemeral(), options)
        try:
            port = next(each for each in transport._endpoint.bound_sockets() if each[0] != "[").rpartition(
                ":"
            )[2]
            await until(lambda: f"192.0.2.7:{port}" in transport.address().hosts)
        finally:
            await transport.close()


async def test_only_a_chosen_peer_is_heard_and_few_addresses_are_kept() -> None:
    plain = Options(listen=("127.0.0.1:0",))
    client = await IrohTransport.start(Identity.ephemeral(), plain)
    server = await IrohTransport.start(Identity.ephemeral(), plain)
    try:
        there = await client.connect(server.address(), 5)
        here = await server.accept()
        assert isinstance(here, IrohConnection)
        for number in range(1, MAX_SEEN + 3):
            there.send(seen.tell(f"192.0.2.{number}:1"))
            here.send(seen.tell(f"192.0.2.{number}:1"))
            await asyncio.sleep(0.05)
        await until(lambda: f"192.0.2.{MAX_SEEN + 2}:1" in client.address().hosts)
        kept = [each for each in client.address().hosts if each.startswith("192.0.2.")]
        assert sorted(kept) == [f"192.0.2.{number}:1" for number in range(3, MAX_SEEN + 3)]
        assert not any(each.startswith("192.0.2.") for each in server.address().hosts)
    finally:
        await client.close()
        await server.close()
