"""The access log: one JSON object per request."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from aiohttp import web

from phase.provider.lines import LineWriter

_log = logging.getLogger(__name__)
_MAX_TEXT = 200
#: Lines a second about connections that were refused before a request was read. A flood of them costs its
#: sender next to nothing, and must not fill the disk.
REFUSED_PER_SECOND = 10


class _Pace:
    """The number of such lines in this second, and the number left out since the last line."""

    since = 0.0
    lines = 0
    left_out = 0


class _Place:
    """Where the lines go; None without an access log."""

    writer: LineWriter | None = None


_pace = _Pace()


def note(request: web.Request, status: int, length: int, seconds: float) -> None:
    """Log one answer.

    Args:
        request: the request.
        status: of the answer; 499 where the reader left before its end.
        length: bytes of body.
        seconds: from the request's head to the end of the answer.
    """
    if wanted():
        answered(
            client=request.remote or "",
            method=request.method,
            path=request.raw_path,
            range_=request.headers.get("Range"),
            agent=request.headers.get("User-Agent", ""),
            status=status,
            length=length,
            seconds=seconds,
        )


def answered(
    *,
    client: str,
    method: str,
    path: str,
    range_: str | None,
    agent: str,
    status: int,
    length: int,
    seconds: float,
) -> None:
    """Log one answer; the arguments are as of `note`, and fields of the request."""
    _write(
        client=client,
        method=method[:16],
        path=path[:_MAX_TEXT],
        status=status,
        bytes=length,
        seconds=round(seconds, 4),
        **({"range": range_[:_MAX_TEXT]} if range_ else {}),
        agent=agent[:_MAX_TEXT],
    )


def refused(client: str, status: int, length: int) -> None:
    """Log a connection that was refused before a request was read; limited to so many lines a second.

    Args:
        client: its address, or the network it counts for.
        status: 400 if its bytes were not a request, 429 or 503 if there were too many connections.
        length: bytes of the answer's body; 0 if the connection was closed without an answer.
    """
    if not wanted():
        return
    now = monotonic()
    if now - _pace.since >= 1.0:
        _pace.since, _pace.lines = now, 0
    if _pace.lines >= REFUSED_PER_SECOND:
        _pace.left_out += 1
        return
    _pace.lines += 1
    more = {"left_out": _pace.left_out} if _pace.left_out else {}
    _pace.left_out = 0
    _write(client=client, method="", path="", status=status, bytes=length, seconds=0, agent="", **more)


def wanted() -> bool:
    """Whether there is an access log."""
    return _Place.writer is not None


def _write(**facts: object) -> None:
    if _Place.writer is not None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        _Place.writer.write(json.dumps({"time": time, **facts}))


def log_to(place: str) -> None:
    """Write the access log to a file, appended to, or to standard output.

    A file that is moved away, as logrotate does, is opened anew.

    Args:
        place: path of the file; `-` for standard output.

    Raises:
        OSError: the file cannot be opened.
    """
    if place == "-":
        _Place.writer = LineWriter("access log", descriptor=1, say=_say)
    else:
        _Place.writer = LineWriter("access log", place=Path(place), say=_say)


def reopen() -> None:
    """Open the file anew, on SIGHUP."""
    if _Place.writer is not None:
        _Place.writer.reopen()


def _say(text: str) -> None:
    _log.error("%s", text)
