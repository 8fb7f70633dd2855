"""Errors as JSON problem details (RFC 9457)."""

from http import HTTPStatus

import msgspec
from aiohttp import web


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
