"""What commands share that verify a release: the root they trust, and the time."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from phase.cli import _given, _options

MAX_ROOT = 512_000


def read_root(path: Path) -> bytes:
    """The trusted root.

    Raises:
        PhaseError: it cannot be read, or is too long.
    """
    return _given.read(path, "the trusted root", MAX_ROOT)


def root_option(*, required: bool = False, otherwise: str = "") -> Callable[[Any], Any]:
    """The option that names the root metadata to trust.

    Args:
        required: whether there is no other way.
        otherwise: what is trusted where it is not given.
    """
    return _options.option(
        "--root",
        "root_file",
        type=_options.PLACE,
        metavar="FILE",
        required=required,
        standard=otherwise,
        help="Root metadata to trust first, as your images hold it.",
    )


def now(seen: float = 0.0) -> datetime:
    """The time expiry is judged by: this machine's, unless it is behind what was `seen` (Unix seconds)."""
    from phase.trust import clock

    return clock.trusted_now(last_seen=seen)
