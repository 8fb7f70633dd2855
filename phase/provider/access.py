"""The access log: one JSON object per request, through the logger `phase.access`."""

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from aiohttp import web

_log = logging.getLogger("phase.access")
_log.propagate = False
_MAX_TEXT = 200


def note(request: web.Request, status: int, length: int, seconds: float) -> None:
    """Log one answer.

    Args:
        request: what was asked.
        status: of the answer; 499 where the reader left before its end.
        length: bytes of body.
        seconds: from the request's head to the end of the answer.
    """
    if not _log.isEnabledFor(logging.INFO) or not _log.handlers:
        return
    asked = request.headers.get("Range")
    _log.info(
        json.dumps(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "client": request.remote or "",
                "method": request.method[:16],
                "path": request.raw_path[:_MAX_TEXT],
                "status": status,
                "bytes": length,
                "seconds": round(seconds, 4),
                **({"range": asked[:_MAX_TEXT]} if asked else {}),
                "agent": request.headers.get("User-Agent", "")[:_MAX_TEXT],
            }
        )
    )


def log_to(place: str) -> None:
    """Write the access log to a file, appended to, or to standard output.

    Args:
        place: path of the file; `-` for standard output.

    Raises:
        OSError: the file cannot be written.
    """
    # A file that is moved away, as logrotate does, is opened anew.
    handler: logging.Handler
    if place == "-":
        handler = logging.StreamHandler(sys.stdout)
    else:
        handler = WatchedFileHandler(Path(place), encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
