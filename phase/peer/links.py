"""Connections and streams by iroh, as `phase.peer.iroh` gives them out."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

import iroh

from phase.peer import bindings
from phase.peer.errors import ConnectionLostError, PeerError
from phase.peer.outcome import cut
from phase.peer.transport import Code, Path
from phase.provider import background

_T = TypeVar("_T")
#: What the bindings' methods return; they are neither sent to nor thrown into.
_Work = Coroutine[Any, Any, _T]
#: Bytes of one `send` that are handed over at a time.
_PIECE = 256 << 10
#: Bytes of one `receive` at most.
_MOST = 1 << 20


class IrohStream:
    """A stream by iroh; see `Stream`."""

    def __init__(self, owner: "IrohConnection", inner: iroh.BiStream) -> None:
        self._owner, self._out, self._in = owner, inner.send(), inner.recv()
        #: What the calls of this stream wait for now.
        self._waiting: set[asyncio.Future[object]] = set()
        self._over: PeerError | None = None

    async def send(self, data: bytes) -> None:
        """See `Stream`."""
        for start in range(0, len(data), _PIECE):
            await self._call(self._out.write_all(data[start : start + _PIECE]))

    async def receive(self, size: int) -> bytes:
        """See `Stream`."""
        return await self._call(self._in.read(min(size, _MOST)))

    async def finish(self) -> None:
        """See `Stream`."""
        await self._call(self._out.finish())

    async def reset(self, code: int) -> None:
        """See `Stream`."""
        if self._over is not None:
            return
        self._over = PeerError("this side has given up the stream")
        # A call that waits holds the library's lock on the stream.
        for each in tuple(self._waiting):
            each.cancel()
        # One begins when the other has ended: a call that was made and never awaited would be warned of.
        for end in (self._out.reset, self._in.stop):
            try:
                await end(code)
            except iroh.IrohError:
                continue  # that direction is over already

    async def _call(self, work: _Work[_T]) -> _T:
        # Whether the peer has closed it, the call itself says; to ask the library each time would cost more.
        if wrong := self._over or self._owner.here:
            work.close()
            raise wrong
        try:
            return await _Ended(work, self._waiting)
        except iroh.IrohError as error:
            raise self._owner.over() or bindings.of_stream(error) from None
        except asyncio.CancelledError:
            if self._over is None or background.cancelled():
                raise
            raise self._over from None


class _Ended(Generic[_T]):
    """Awaits a call of the library, and shows what it waits for; most calls wait for nothing.

    Args:
        work: the call.
        waiting: to whoever cancels what is there, the call is over.
    """

    def __init__(self, work: _Work[_T], waiting: set[asyncio.Future[object]]) -> None:
        self._work, self._waiting = work, waiting

    def __await__(self) -> Generator[Any, Any, _T]:
        steps = self._work.__await__()
        try:
            while True:
                waits = next(steps)
                if waits is None:  # only a turn of the loop
                    yield
                    continue
                self._waiting.add(waits)
                try:
                    yield waits
                finally:
                    self._waiting.discard(waits)
        except StopIteration as end:
            result: _T = end.value
            return result
        finally:
            steps.close()


class IrohConnection:
    """A connection by iroh; see `Connection`."""

    def __init__(self, inner: iroh.Connection) -> None:
        self.inner = inner
        self._peer = inner.remote_id().to_bytes().hex()
        #: The error for whoever uses it, once this side has closed it.
        self.here: PeerError | None = None
        #: The paths that it has taken, the newest last.
        self.taken: deque[Path] = deque(maxlen=16)
        #: Datagrams received so far, and seconds for which that number has not grown.
        self.heard, self.silent = -1, 0.0

    def __repr__(self) -> str:
        return f"IrohConnection({self._peer[:8]})"

    @property
    def peer(self) -> str:
        """See `Connection`."""
        return self._peer

    async def open(self) -> IrohStream:
        """See `Connection`."""
        return IrohStream(self, await self._call(self.inner.open_bi()))

    async def accept(self) -> IrohStream:
        """See `Connection`."""
        return IrohStream(self, await self._call(self.inner.accept_bi()))

    def path(self) -> Path | None:
        """See `Connection`."""
        return None if self.over() else _selected(self.inner.paths())

    async def closed(self) -> str:
        """See `Connection`."""
        reason = await self.inner.closed()
        return str(self.here or bindings.ended(reason))

    async def close(self, code: int = Code.DONE, reason: str = "") -> None:
        """See `Connection`."""
        self.end(code, reason)

    def end(self, code: int, reason: str, error: PeerError | None = None) -> None:
        """As `close`.

        Args:
            code: for the peer.
            reason: for the peer.
            error: for whoever uses this connection.
        """
        if self.over() is None:
            told = f"this side closed the connection{reason and ': '}{reason}"
            self.here = error or ConnectionLostError(told)
            self.inner.close(code, cut(reason))

    def over(self) -> PeerError | None:
        """The error for whoever uses this connection; None while it goes on."""
        if self.here is not None:
            return self.here
        reason = self.inner.close_reason()
        return None if reason is None else bindings.ended(reason)

    async def _call(self, work: _Work[_T]) -> _T:
        try:
            return await work
        except iroh.IrohError as error:
            raise self.over() or bindings.of_stream(error) from None

    def send(self, datagram: bytes) -> None:
        """Send a datagram; it may get lost."""
        with contextlib.suppress(iroh.IrohError):
            self.inner.send_datagram(datagram)

    def look(self, passed: float) -> Path | None:
        """Note the path that is taken now, and whether anything has arrived.

        Args:
            passed: seconds since the last look in which something could have arrived.

        Returns:
            The path, if it is another than before.
        """
        paths = self.inner.paths()
        heard = sum(each.stats.udp_rx_datagrams for each in paths)
        self.silent = 0.0 if heard != self.heard else self.silent + passed
        self.heard = heard
        now, before = _selected(paths), self.taken[-1] if self.taken else None
        if now is None or (before and (now.kind, now.remote) == (before.kind, before.remote)):
            return None
        self.taken.append(now)
        return now


def _selected(paths: list[iroh.PathSnapshot]) -> Path | None:
    for each in paths:
        if each.is_selected:
            return Path("direct" if each.is_ip else "relay", each.remote_addr, each.rtt_ms / 1000)
    return None
