"""Limits how long a connection may stay without a request, and how long a request's head may take.

When the provider ends, connections are closed gracefully; those that take too long are cut off.

aiohttp limits neither a head that arrives a byte at a time nor a new connection that stays silent.
This protocol stands between a transport and aiohttp's own and passes everything on.
"""

import asyncio
import contextlib
import os
from typing import Protocol, cast

from aiohttp import web

from phase.provider import access
from phase.provider.limits import Limits, client_of, refusal
from phase.provider.metrics import Metrics

#: Seconds for the complete head of a request, from connecting or from its first byte.
HEAD_SECONDS = 20.0
#: Seconds a connection is kept after an answer.
IDLE_SECONDS = 75.0
#: Seconds that a connection over the limit has to send its request and receive the refusal.
REFUSED_SECONDS = 2.0

#: Bytes of a request that are read before it is refused.
_READ = 1 << 16
#: When the provider ends: seconds for the last bytes on connections that wait for a request. Also the
#: interval at which it checks whether the operator asks for an immediate end.
LAST_WORDS_SECONDS = 0.5


class Inner(Protocol):
    """What answers on a connection: aiohttp's protocol, or one like it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of `asyncio.Protocol`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""

    def data_received(self, data: bytes) -> None:
        """As of `asyncio.Protocol`."""

    def eof_received(self) -> None:
        """As of `asyncio.Protocol`."""

    def pause_writing(self) -> None:
        """As of `asyncio.Protocol`."""

    def resume_writing(self) -> None:
        """As of `asyncio.Protocol`."""

    def close(self) -> None:
        """Close the connection after the answer under way."""


class Connections:
    """The open connections of one provider."""

    def __init__(self) -> None:
        self._open: set[Guard] = set()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, guard: "Guard") -> None:
        """One has come."""
        self._open.add(guard)
        self._none.clear()

    def remove(self, guard: "Guard") -> None:
        """One has gone."""
        self._open.discard(guard)
        if not self._open:
            self._none.set()

    async def drain(self, seconds: float, at_once: asyncio.Event) -> int:
        """Close idle connections, let answers under way finish, then cut off the rest.

        Args:
            seconds: for answers under way.
            at_once: set it to end the wait early.

        Returns:
            How many were cut off.
        """
        for guard in list(self._open):
            guard.end()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while self._open and not at_once.is_set() and (gone := loop.time() - begun) < seconds:
            if gone >= LAST_WORDS_SECONDS:
                for guard in list(self._open):
                    guard.abort_idle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LAST_WORDS_SECONDS, seconds - gone)):
                    await self._none.wait()
        left = list(self._open)
        for guard in left:
            guard.abort()
        return len(left)


class Guard(asyncio.Protocol):
    """One connection.

    Args:
        inner: answers on it.
        metrics: where to count.
        limits: decides whether there is room for it.
        connections: holds it while it is open.
    """

    def __init__(self, inner: Inner, metrics: Metrics, limits: Limits, connections: Connections) -> None:
        self._inner = inner
        self._metrics = metrics
        self._limits = limits
        self._connections = connections
        self._client = ""
        #: The status of the refusal, for a connection over the limit; 0 for any other.
        self._refused = 0
        self._held = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: By the loop's clock; it counts while no answer is under way.
        self._deadline = 0.0
        self._answering = 0
        self._head = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._transport = cast(asyncio.Transport, transport)
        self._metrics.connections += 1
        self._connections.add(self)
        self._client = client_of(transport.get_extra_info("peername"))
        self._refused = self._limits.enter(self._client)
        if self._refused:
            self._held = self._limits.hold()
            if self._held:
                self._wait(REFUSED_SECONDS)
            else:
                self._refuse_now()
            return
        self._inner.connection_made(transport)
        self._wait(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._metrics.connections -= 1
        self._connections.remove(self)
        self._cancel()
        self._transport = None
        if self._held:
            self._limits.let_go()
        if not self._refused:
            self._limits.leave(self._client)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The first byte of a further request changes from the idle limit to the head's."""
        if self._refused:
            # Refuse only after the request: unread bytes would turn the answer into a reset.
            self._tell_refused()
            return
        if not self._head and not self._answering:
            self._head = True
            self._wait(HEAD_SECONDS)
        self._inner.data_received(data)

    def _refuse_now(self) -> None:
        """Refuse without waiting for the request, since too many connections wait already."""
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            access.refused(self._client, self._refused, 0)
            self.abort()
            return
        # Unread bytes would turn the answer into a reset.
        with contextlib.suppress(OSError):
            os.read(transport.get_extra_info("socket").fileno(), _READ)
        self._tell_refused()

    def _tell_refused(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            answer = refusal(self._refused)
            self._transport.write(answer)
            self._transport.close()
            self._metrics.requests["none", self._refused] += 1
            access.refused(self._client, self._refused, len(answer.partition(b"\r\n\r\n")[2]))

    def eof_received(self) -> bool | None:
        """A client that has ended its side may still read: finish the answer under way, then close."""
        transport = self._transport
        if self._refused or transport is None:
            return None
        self._inner.eof_received()
        if transport.get_extra_info("sslcontext") is not None:
            return None  # TLS has no half-open connections
        self._inner.close()
        # A connection that waits for a request does not close by itself. A request that has just arrived
        # will have begun by then.
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._close_idle)
        return True

    def pause_writing(self) -> None:
        """Pass on."""
        if not self._refused:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if not self._refused:
            self._inner.resume_writing()

    def end(self) -> None:
        """Close it after the answer under way, or at once without one."""
        if self._refused:
            self.abort()
        else:
            self._inner.close()

    def abort_idle(self) -> None:
        """Close it now if it waits for a request."""
        if not self._answering:
            self.abort()

    def abort(self) -> None:
        """Close it now, whatever it does."""
        if self._transport is not None:
            self._transport.abort()

    def _close_idle(self) -> None:
        if self._transport is not None and not self._answering:
            self._transport.close()

    def request_started(self) -> None:
        """A whole head has arrived."""
        self._answering += 1

    def request_done(self) -> None:
        """The answer is out."""
        self._answering -= 1
        self._head = False
        if self._transport is not None and not self._answering:
            self._wait(IDLE_SECONDS)

    def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = loop.time() + seconds
        # A timer that rings too early is set again then: two new timers for each request would be slow.
        if self._timer is None or self._timer.when() > self._deadline:
            self._cancel()
            self._timer = loop.call_at(self._deadline, self._ring)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._transport is None or self._answering:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._ring)
            return
        self._metrics.idle_closed += 1
        self._transport.abort()


def of(request: web.Request) -> Guard | None:
    """The guard of a request's connection, where it has one."""
    if request.transport is None:
        return None
    found = request.transport.get_protocol()
    return found if isinstance(found, Guard) else None
