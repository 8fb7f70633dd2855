"""Transports within one process, for tests: they keep `phase.peer.transport`'s rules without a network."""

import asyncio
from collections import deque

from phase.identity import Identity
from phase.peer.address import Address
from phase.peer.errors import ConnectionLostError, PeerError, StreamResetError, UnreachableError
from phase.peer.outcome import over
from phase.peer.transport import Code, Path

#: What one direction of a stream holds before `send` waits, bytes.
BUFFER = 64 << 10
#: Streams that each side may have open at a time.
MAX_STREAMS = 64
#: Connections that wait for `accept`.
BACKLOG = 64


class Network:
    """What transports join to reach each other."""

    def __init__(self) -> None:
        self._members: dict[str, MemoryTransport] = {}

    def join(self, identity: Identity | None = None) -> "MemoryTransport":
        """A new transport.

        Args:
            identity: its key; a new one if left out. The same key again takes the earlier transport's place.
        """
        made = MemoryTransport(self, (identity or Identity.ephemeral()).public_key)
        self._members[made.key] = made
        return made

    def find(self, key: str) -> "MemoryTransport | None":
        """The transport of a key."""
        return self._members.get(key)

    def leave(self, member: "MemoryTransport") -> None:
        """Forget a transport."""
        if self._members.get(member.key) is member:
            del self._members[member.key]


class _Pipe:
    """One direction of a stream."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._finished = False
        self._error: PeerError | None = None
        self._changed = asyncio.Event()

    async def send(self, data: bytes) -> None:
        left = memoryview(data)
        while True:
            self._check()
            if self._finished:
                raise ConnectionLostError("the stream was finished, and takes no more")
            room = BUFFER - len(self._held)
            if room > 0 and left:
                self._held += left[:room]
                left = left[room:]
                self._tell()
            if not left:
                return
            await self._wait()

    async def receive(self, size: int) -> bytes:
        while True:
            self._check()
            if self._held:
                data = bytes(self._held[:size])
                del self._held[:size]
                self._tell()
                return data
            if self._finished:
                return b""
            await self._wait()

    def finish(self) -> None:
        self._check()
        self._finished = True
        self._tell()

    def end(self, error: PeerError) -> None:
        """Throw away what is held; every later call raises. Once everything has arrived, nothing is lost."""
        if self._error is None and not (self._finished and not self._held):
            self._error = error
            self._held.clear()
        self._tell()

    def over(self) -> bool:
        return self._error is not None or (self._finished and not self._held)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self) -> None:
        await self._changed.wait()


class _Stream:
    def __init__(self, owner: "_Connection", outward: _Pipe, inward: _Pipe, announced: bool) -> None:
        self._owner, self._outward, self._inward = owner, outward, inward
        self._announced = announced

    async def send(self, data: bytes) -> None:
        self._announce()
        try:
            await self._outward.send(data)
        except PeerError:
            self._owner.check()  # both ends share the pipe; each has its own words for the end
            raise

    async def receive(self, size: int) -> bytes:
        self._owner.check()
        try:
            return await self._inward.receive(size)
        except PeerError:
            self._owner.check()
            raise

    async def finish(self) -> None:
        self._announce()
        self._outward.finish()

    async def reset(self, code: int) -> None:
        for pipe in (self._outward, self._inward):
            pipe.end(StreamResetError(code))

    def _announce(self) -> None:
        self._owner.check()
        if not self._announced:
            self._announced = True
            other = self._owner.other
            other.announce(_Stream(other, self._inward, self._outward, announced=True))


class _Connection:
    """One end of a connection; `other` is the other end."""

    other: "_Connection"

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._arrived: deque[_Stream] = deque()
        self._pipes: list[tuple[_Pipe, _Pipe]] = []
        self._error: PeerError | None = None
        self._changed, self._ended = asyncio.Event(), asyncio.Event()

    @property
    def peer(self) -> str:
        return self._peer

    async def open(self) -> _Stream:
        self.check()
        while len(self._open()) >= MAX_STREAMS:
            await asyncio.sleep(0.01)
            self.check()
        pipes = _Pipe(), _Pipe()
        self._pipes.append(pipes)
        return _Stream(self, *pipes, announced=False)

    async def accept(self) -> _Stream:
        while True:
            self.check()
            if self._arrived:
                return self._arrived.popleft()
            self._changed.clear()
            await self._changed.wait()

    def announce(self, stream: _Stream) -> None:
        self._arrived.append(stream)
        self._changed.set()

    def path(self) -> Path | None:
        return None if self._error else Path("memory", self._peer, 0.0)

    async def closed(self) -> str:
        await self._ended.wait()
        return str(self._error)

    async def close(self, code: int = Code.DONE, reason: str = "") -> None:
        if self._error is None:
            self.end(ConnectionLostError(f"this side closed the connection{reason and ': '}{reason}"))
            self.other.end(over(code, reason))

    def end(self, error: PeerError) -> None:
        if self._error is not None:
            return
        self._error = error
        for pipe in (pipe for pipes in self._pipes + self.other._pipes for pipe in pipes):
            pipe.end(error)
        self._ended.set()
        self._changed.set()

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _open(self) -> list[tuple[_Pipe, _Pipe]]:
        self._pipes = [pipes for pipes in self._pipes if not all(pipe.over() for pipe in pipes)]
        return self._pipes


class MemoryTransport:
    """One member of a `Network`."""

    def __init__(self, network: Network, key: str) -> None:
        self._network, self._key = network, key
        self._arrived: asyncio.Queue[_Connection | None] = asyncio.Queue(BACKLOG)
        self._mine: list[_Connection] = []
        self._closed = False

    @property
    def key(self) -> str:
        """See `Transport`."""
        return self._key

    def address(self) -> Address:
        """See `Transport`."""
        return Address(self._key)

    async def connect(self, address: Address, timeout: float) -> _Connection:
        """See `Transport`."""
        if self._closed:
            raise ConnectionLostError("this transport is closed")
        found = self._network.find(address.key)
        if found is None:
            raise UnreachableError(f"no node with the key {address.key} answers")
        here, there = _Connection(address.key), _Connection(self._key)
        here.other, there.other = there, here
        try:
            async with asyncio.timeout(timeout):
                await found._arrived.put(there)
        except TimeoutError:
            raise UnreachableError(f"the node {address.key} took no connection in {timeout:g} s") from None
        self._keep(here)
        found._keep(there)
        return here

    async def accept(self) -> _Connection:
        """See `Transport`."""
        found = None if self._closed else await self._arrived.get()
        if found is None:
            raise ConnectionLostError("this transport is closed")
        return found

    async def close(self) -> None:
        """See `Transport`."""
        for each in self._mine:
            await each.close(Code.STOPPING, "the node stops")
        self._leave()

    def kill(self) -> None:
        """End as a killed process does: peers notice that it is gone, and get no reason from it."""
        for each in self._mine:
            each.end(ConnectionLostError("this transport was killed"))
            each.other.end(ConnectionLostError("the peer is gone"))
        self._leave()

    def _keep(self, connection: _Connection) -> None:
        self._mine = [each for each in self._mine if each.path()]
        self._mine.append(connection)

    def _leave(self) -> None:
        self._closed = True
        self._network.leave(self)
        # Whoever waits in `accept` wakes up.
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)
