"""What only the real transport does."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from phase.identity import Identity
from phase.peer.errors import ConnectionLostError, PeerError, RefusedError, UnreachableError
from phase.peer.iroh import IrohTransport, Limits, Options
from phase.peer.transport import Address

Start = Callable[[Options], Awaitable[IrohTransport]]
HERE = ("127.0.0.1:0",)
PLAIN = Options(listen=HERE)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    made: list[IrohTransport] = []

    async def begin(options: Options) -> IrohTransport:
        made.append(await IrohTransport.start(Identity.ephemeral(), options))
        return made[-1]

    yield begin
    for each in made:
        await each.close()


async def test_identity_is_the_address(start: Start) -> None:
    identity = Identity.from_seed(bytes(range(32)))
    transport = await IrohTransport.start(identity, PLAIN)
    assert transport.key == transport.address().key == identity.public_key
    client = await start(PLAIN)
    connection = await client.connect(transport.address(), 5)
    assert connection.peer == identity.public_key
    await transport.close()


async def test_only_the_given_addresses_are_listened_on(start: Start) -> None:
    transport = await start(PLAIN)
    hosts = {each.rpartition(":")[0] for each in transport._endpoint.bound_sockets()}
    assert hosts == {"127.0.0.1", "[::1]"}
    assert {each.rpartition(":")[0] for each in transport.address().hosts} == {"127.0.0.1"}


async def test_ipv6(start: Start) -> None:
    server, client = await start(Options(listen=("[::1]:0",))), await start(Options(listen=("[::1]:0",)))
    address = server.address()
    only = tuple(each for each in address.hosts if each.startswith("[::1]:"))
    assert only
    connection = await client.connect(Address(address.key, only), 5)
    # They tell each other their other addresses, so another path may have been chosen by now.
    assert only[0] in {each.remote_addr for each in connection.inner.paths()}


async def test_names_are_resolved_by_this_machine(start: Start) -> None:
    server, client = await start(PLAIN), await start(PLAIN)
    port = server.address().hosts[0].rpartition(":")[2]
    assert await client.connect(Address(server.key, (f"localhost:{port}",)), 5)
    with pytest.raises(UnreachableError, match="has no address"):
        await client.connect(Address(server.key, ("name.invalid:1",)), 5)


async def test_taken_port_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PeerError, match=f"cannot listen on {listen}"):
            await IrohTransport.start(Identity.ephemeral(), Options(listen=(listen,)))


@pytest.mark.parametrize(
    "listen",
    [("node.example:1",), ("127.0.0.1",), ("::1:1",), ("127.0.0.1:1", "0.0.0.0:2"), ("1.2.3.4:99999",)],
)
async def test_wrong_address_to_listen_on_is_named(listen: tuple[str, ...]) -> None:
    with pytest.raises(PeerError, match="address") as told:
        await IrohTransport.start(Identity.ephemeral(), Options(listen=listen))
    assert "0.0.0.0:4433" in told.value.hint


async def test_silence_ends_in_time_with_the_address(start: Start) -> None:
    client = await start(PLAIN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=f"{where} within 0.5 s"):
            await client.connect(Address(Identity.ephemeral().public_key, (where,)), 0.5)


async def test_own_key_and_no_key_are_told_apart(start: Start) -> None:
    client = await start(PLAIN)
    with pytest.raises(UnreachableError, match="own key"):
        await client.connect(client.address(), 2)
    with pytest.raises(UnreachableError, match="no address of it is known"):
        await client.connect(Address(Identity.ephemeral().public_key), 2)
    with pytest.raises(UnreachableError, match="ab" * 32) as told:
        await client.connect(Address("ab" * 32, ("127.0.0.1:9",)), 2)
    assert ".rs:" not in str(told.value)


async def test_wrong_key_at_the_right_address(start: Start) -> None:
    server, client = await start(PLAIN), await start(PLAIN)
    with pytest.raises(UnreachableError, match="another node answers there"):
        await client.connect(Address(Identity.ephemeral().public_key, server.address().hosts), 5)


async def test_key_that_is_not_admitted_is_told_why(start: Start) -> None:
    good = await start(PLAIN)
    server = await start(Options(listen=HERE, admit=lambda key: "" if key == good.key else "not authorised"))
    stranger = await start(PLAIN)
    connection = await stranger.connect(server.address(), 5)
    with pytest.raises(RefusedError, match="not authorised"):
        await connection.accept()
    await good.connect(server.address(), 5)
    assert (await server.accept()).peer == good.key
    assert server.refused == {"not authorised": 1}
    assert len(server.connections()) == 1


async def test_limits_of_connections(start: Start) -> None:
    limits = Limits(per_peer=2, connections=3, backlog=8)
    server = await start(Options(listen=HERE, limits=limits))
    clients = [await start(PLAIN) for _ in range(3)]
    held = [await clients[0].connect(server.address(), 5) for _ in range(2)]
    with pytest.raises(RefusedError, match="may have 2 connections"):
        await (await clients[0].connect(server.address(), 5)).accept()
    await clients[1].connect(server.address(), 5)
    with pytest.raises(RefusedError, match="too many connections"):
        await (await clients[2].connect(server.address(), 5)).accept()
    # Room comes back when one ends.
    await held[0].close()
    while len(server.connections()) > 2:
        await asyncio.sleep(0.01)
    await clients[2].connect(server.address(), 5)


async def test_connections_that_nobody_accepts_are_bounded(start: Start) -> None:
    server, client = await start(Options(listen=HERE, limits=Limits(backlog=2))), await start(PLAIN)
    for _ in range(2):
        await client.connect(server.address(), 5)
    with pytest.raises(RefusedError, match="too many connections"):
        await (await client.connect(server.address(), 5)).accept()
    await server.accept()
    await client.connect(server.address(), 5)


@pytest.mark.parametrize(("handshakes", "refused"), [(0, True), (1, False)])
async def test_handshakes_are_bounded(start: Start, handshakes: int, refused: bool) -> None:
    """With one, half of them are none, so each peer must first show that it can be reached."""
    server, client = (
        await start(Options(listen=HERE, limits=Limits(handshakes=handshakes))),
        await start(PLAIN),
    )
    if refused:
        with pytest.raises(RefusedError, match="too many connections"):
            await client.connect(server.address(), 5)
        assert server.refused == {"too many handshakes": 1}
    else:
        await client.connect(server.address(), 5)
        await server.accept()
        assert server.challenged == 1


_PEER = """
import asyncio, sys
from phase.identity import Identity
from phase.peer.iroh import IrohTransport, Options

async def main():
    transport = await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",)))
    print(transport.address(), flush=True)
    connection = await transport.accept()
    await connection.closed()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_peer_that_is_gone_is_noticed(start: Start, how: signal.Signals) -> None:
    limits = Limits(beat_seconds=0.2, silent_seconds=1.5)
    client = await start(Options(listen=HERE, limits=limits))
    with subprocess.Popen([sys.executable, "-c", _PEER], stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        address = Address.parse(peer.stdout.readline())
        connection = await client.connect(address, 10)
        waiting = asyncio.ensure_future(connection.accept())
        # A peer that says nothing is not gone: its library answers.
        await asyncio.sleep(3)
        assert not waiting.done()
        os.kill(peer.pid, how)
        with pytest.raises(ConnectionLostError, match="the peer is gone: nothing was heard"):
            async with asyncio.timeout(10):
                await waiting
        assert "gone" in await connection.closed()
        peer.kill()


async def test_own_standstill_is_not_the_peers_silence(start: Start) -> None:
    # This peer sends nothing by itself for as long as the test lasts.
    server = await start(Options(listen=HERE, limits=Limits(beat_seconds=3600)))
    client = await start(Options(listen=HERE, limits=Limits(beat_seconds=0.1, silent_seconds=1)))
    connection = await client.connect(server.address(), 5)
    await asyncio.sleep(0.5)
    time.sleep(3)
    await asyncio.sleep(0.5)
    assert connection.over() is None


async def test_path_is_noted(start: Start) -> None:
    server = await start(PLAIN)
    client = await start(Options(listen=HERE, limits=Limits(beat_seconds=0.05)))
    connection = await client.connect(server.address(), 5)
    while not connection.taken:
        await asyncio.sleep(0.02)
    assert connection.taken[0].kind == "direct"
    assert connection.taken[0].remote in server._endpoint.bound_sockets()


async def test_nothing_is_left_when_it_is_closed() -> None:
    before = _descriptors()
    for _ in range(3):
        server = await IrohTransport.start(Identity.ephemeral(), PLAIN)
        client = await IrohTransport.start(Identity.ephemeral(), PLAIN)
        connection = await client.connect(server.address(), 5)
        await (await connection.open()).send(b"x")
        await client.close()
        await server.close()
        del server, client, connection
    async with asyncio.timeout(10):
        # The library's own threads and its first descriptors stay.
        while _descriptors() > before + 6:
            await asyncio.sleep(0.05)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
