"""A connection without aiohttp, until its first request that is not plain."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

from aiohttp import web

from phase.provider import access, guard
from phase.provider.metrics import Metrics
from phase.provider.plain import Answer, Plain, Request, parse
from phase.provider.sending import Sending


class Direct:
    """One connection. Its guard calls it as it would call aiohttp's protocol.

    Args:
        plain: answers plain requests.
        connection: the socket. The transport closes it.
        metrics: counts answers.
        make: makes aiohttp's protocol, for everything else.
    """

    def __init__(
        self,
        plain: Plain,
        connection: socket.socket,
        metrics: Metrics,
        make: Callable[[], web.RequestHandler],
    ) -> None:
        self._plain = plain
        self._socket = connection
        self._metrics = metrics
        self._make = make
        self._inner: web.RequestHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._sending: Sending | None = None
        #: Ends the answer under way.
        self._done: Callable[[bool], None] | None = None
        #: Bytes that came during an answer. No more are read meanwhile.
        self._early = b""
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer under way."""
        self._transport = None
        if self._inner is not None:
            self._inner.connection_lost(exc)
        if self._sending is not None and self._done is not None:
            self._sending.stop()
            self._done(False)

    def data_received(self, data: bytes) -> None:
        """Answer a plain request; give everything else to aiohttp."""
        transport = self._transport
        if self._inner is not None:
            self._inner.data_received(data)
            return
        if transport is None or transport.is_closing():
            return
        if self._sending is not None:
            transport.pause_reading()
            self._early += data
            return
        # An answer before this one that its reader has not taken: aiohttp waits for that.
        request = parse(data) if not transport.get_write_buffer_size() else None
        now = time.time()
        answer = self._plain.answer(request, now) if request is not None else None
        if request is None or answer is None:
            self._inner = self._make()
            self._inner.connection_made(transport)
            self._inner.data_received(data)
            return
        self._send(transport, request, answer)

    def eof_received(self) -> None:
        """The client sends no more."""
        if self._inner is not None:
            self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._inner is not None:
            self._inner.resume_writing()

    def close(self) -> None:
        """Close it after the answer under way."""
        if self._inner is not None:
            self._inner.close()
        elif self._sending is not None:
            self._closing = True
        elif self._transport is not None:
            self._transport.close()

    def _send(self, transport: asyncio.Transport, request: Request, answer: Answer) -> None:
        watched = cast(guard.Guard, transport.get_protocol())
        watched.request_started()
        self._closing = request.close
        begun = time.monotonic()
        self._metrics.active += 1

        def done(whole: bool) -> None:
            self._sending = self._done = None
            status, length = (answer.status, answer.length) if whole else (499, 0)
            self._metrics.active -= 1
            self._metrics.requests[answer.route, status] += 1
            self._metrics.bytes_sent[answer.route] += length
            if answer.part is not None:
                self._plain.opened.give_back(answer.part)
            if access.wanted():
                # A connection that was reset before it was accepted has no peer, but has its request.
                peer = transport.get_extra_info("peername")
                access.answered(
                    client=peer[0] if peer else "",
                    method="GET",
                    path=request.path,
                    range_=request.range,
                    agent=request.agent,
                    status=status,
                    length=length,
                    seconds=time.monotonic() - begun,
                )
            watched.request_done()
            if not whole:
                transport.abort()
            elif self._closing:
                transport.close()
            elif self._early:
                early, self._early = self._early, b""
                transport.resume_reading()
                watched.data_received(early)

        if answer.part is None:
            transport.write(answer.head)
            done(True)
            return
        self._done = done
        self._sending = Sending(
            self._socket, answer.head, answer.part.descriptor, answer.first, answer.length, done
        )
        self._sending.start()
