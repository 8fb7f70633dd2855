"""A relay on a port of its own, and a client of it that sends whatever a test wants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from phase.identity import Identity
from phase.peer import frames
from phase.peer.relay import Limits, Relay
from phase.provider.background import Background


class Running:
    """A relay that listens on loopback; `stop` and `begin` again on the same port."""

    def __init__(self, allowed: Callable[[str], bool], limits: Limits) -> None:
        self._allowed, self._limits = allowed, limits
        self.port = 0
        self.relay: Relay

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def begin(self) -> None:
        self._background = Background()
        self.relay = Relay(self._allowed, self._limits)
        app = web.Application()
        app.add_routes(self.relay.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.relay.start(self._background)
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.relay.end()
        await self._runner.cleanup()
        await self._background.stop(1.0)
        assert not self._background.failures


@asynccontextmanager
async def relay(
    allowed: Callable[[str], bool] = lambda key: True, limits: Limits | None = None
) -> AsyncIterator[Running]:
    running = Running(allowed, limits or Limits())
    await running.begin()
    try:
        yield running
    finally:
        await running.stop()


class Raw:
    """An endpoint that speaks frames."""

    def __init__(self, session: ClientSession, url: str, identity: Identity, protocol: str) -> None:
        self._session, self._url, self._protocol = session, url, protocol
        self.identity = identity
        self.key = bytes.fromhex(identity.public_key)
        self.socket: ClientWebSocketResponse

    async def open(self) -> None:
        """The WebSocket alone."""
        self.socket = await self._session.ws_connect(
            f"{self._url}/relay", protocols=[self._protocol], max_msg_size=1 << 20, autoclose=False
        )

    async def prove(self) -> bytes:
        """Prove the key; returns the relay's answer."""
        asked = await self.receive()
        assert asked[0] == frames.Type.CHALLENGE
        signature = self.identity.sign(frames.signed(asked[1:]))
        await self.send(bytes([frames.Type.AUTHENTICATION]) + self.key + bytes([64]) + signature)
        return await self.receive()

    async def send(self, frame: bytes) -> None:
        await self.socket.send_bytes(frame)

    async def datagram(self, to: bytes, data: bytes) -> None:
        await self.send(bytes([frames.Type.DATAGRAM_IN]) + to + b"\0" + data)

    async def receive(self) -> bytes:
        """The next frame; `b""` when the relay has ended the connection."""
        async with asyncio.timeout(10):
            message = await self.socket.receive()
        return message.data if message.type is WSMsgType.BINARY else b""

    async def ended(self) -> bool:
        """Whether the relay ends the connection, whatever it sends before."""
        while await self.receive():
            pass
        return True


@asynccontextmanager
async def raw(
    running: Running, identity: Identity | None = None, protocol: str = frames.PROTOCOLS[0]
) -> AsyncIterator[Raw]:
    async with ClientSession() as session:
        made = Raw(session, running.url, identity or Identity.ephemeral(), protocol)
        await made.open()
        yield made


@asynccontextmanager
async def member(
    running: Running, identity: Identity | None = None, protocol: str = frames.PROTOCOLS[0]
) -> AsyncIterator[Raw]:
    """One that has proven its key and was let in."""
    async with raw(running, identity, protocol) as made:
        assert await made.prove() == frames.confirmation()
        yield made
