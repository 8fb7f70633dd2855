"""aiohttp's own protocol for a connection, with our answer to bytes that are not a request."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from phase.provider import access, guard
from phase.provider.limits import client_of
from phase.provider.metrics import Metrics
from phase.provider.problems import problem

_log = logging.getLogger("phase.provider.http")
_MAX_DETAIL = 200


class Protocol(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's server, which answers.
        metrics: the counters.
    """

    __slots__ = ("_metrics",)

    def __init__(self, server: web.Server, metrics: Metrics) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type]  # off; aiohttp's own runner passes None, too
            keepalive_timeout=guard.IDLE_SECONDS,
            # Request bodies are never read here, so they need not be unpacked.
            auto_decompress=False,
        )
        self._metrics = metrics

    def eof_received(self) -> None:
        """The rest of a body will not come: tell the handler that waits for it."""
        request = self._current_request
        if request is not None and not request.content.is_eof():
            request.content.set_exception(RequestPayloadError("the body ended early"))

    def log_exception(self, *args: object, **kw: Any) -> None:
        """Log a failure of this provider. A body that breaks off or is not HTTP is only counted."""
        if isinstance(kw.get("exc_info"), RequestPayloadError | HttpProcessingError | ConnectionError):
            self._metrics.requests["none", 400] += 1
            return
        super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are not HTTP with a problem, and keep them out of the log.

        Strangers could otherwise fill the log and hide this provider's own failures in it.
        """
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        detail = " ".join((message or "").split())
        answer = problem(status, f"this is not a request: {detail}"[:_MAX_DETAIL])
        answer.force_close()
        self._metrics.requests["none", status] += 1
        transport = request.transport
        client = client_of(transport.get_extra_info("peername") if transport else None)
        access.refused(client, status, answer.content_length or 0)
        return answer
