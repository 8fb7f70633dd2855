"""Counts and limits the connections that are in their TLS handshake.

asyncio's own TLS server reports a connection only after the handshake.
"""

import asyncio
import ssl
from typing import cast

from phase.provider import guard
from phase.provider.background import Background
from phase.provider.guard import Guard
from phase.provider.limits import Limits, client_of


class Handshake(asyncio.Protocol):
    """A connection until it is secured; then its guard takes over.

    Args:
        guarded: receives the secured connection.
        context: certificate and key.
        limits: counts handshakes. A connection over the limit is closed without an answer, since it cannot
            read one yet.
        background: runs the handshake.
    """

    def __init__(
        self, guarded: Guard, context: ssl.SSLContext, limits: Limits, background: Background
    ) -> None:
        self._guarded = guarded
        self._context = context
        self._limits = limits
        self._background = background
        #: Data that came with the end of the handshake, before the guard has the connection.
        self._early: list[bytes] = []
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        plain = cast(asyncio.Transport, transport)
        client = client_of(transport.get_extra_info("peername"))
        if self._limits.enter(client):
            plain.abort()
            return
        self._task = self._background.once("a TLS handshake", self._secure(plain, client))

    def data_received(self, data: bytes) -> None:
        """Keep it for the guard."""
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it."""
        self._lost = True

    async def _secure(self, plain: asyncio.Transport, client: str) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                plain, self, self._context, server_side=True, ssl_handshake_timeout=guard.HEAD_SECONDS
            )
        except OSError:  # also errors of ssl, and a handshake that takes too long
            plain.abort()
            return
        except BaseException:
            plain.abort()
            raise
        finally:
            self._limits.leave(client)
        if secured is None or self._lost:
            plain.abort()
            return
        secured.set_protocol(self._guarded)
        self._guarded.connection_made(secured)
        for data in self._early:
            self._guarded.data_received(data)
