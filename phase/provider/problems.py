"""Errors as JSON problem details (RFC 9457), and the end of an answer that cannot go on."""

from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter


def problem(status: int, detail: str, *, retry: int | None = None) -> web.Response:
    """Answer with a problem.

    Args:
        status: HTTP status.
        detail: what is wrong with this request, for a person.
        retry: seconds after which to try again, if that helps.
    """
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/problem+json",
        headers={"Retry-After": str(retry)} if retry is not None else None,
    )


def cut_off(request: web.Request) -> web.Response:
    """Close the connection of a reader that has left, or of an answer that broke off.

    Args:
        request: asked on that connection.

    Returns:
        What a handler returns then, with status 499; none of it is sent.
    """
    if request.transport is not None:
        request.transport.abort()
    return _Left()


class _Left(web.Response):
    """The answer when its reader has left. An exception works too, but aiohttp logs forty lines for it."""

    def __init__(self) -> None:
        super().__init__(status=499, reason="Reader Left")

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Tell aiohttp that the connection is gone."""
        raise ConnectionResetError("the reader has left")
