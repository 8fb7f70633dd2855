"""What `fetch` and `verify` share: a fetched release on disk, in a repository's layout."""

from datetime import datetime
from pathlib import Path

from phase.errors import PhaseError

MAX_ROOT = 512_000


def read_root(path: Path) -> bytes:
    """The trusted root.

    Raises:
        PhaseError: it cannot be read.
    """
    try:
        with path.open("rb") as handle:
            return handle.read(MAX_ROOT + 1)
    except OSError as error:
        raise PhaseError(f"the trusted root {path} cannot be read: {error.strerror}") from error


def now(seen: float = 0.0) -> datetime:
    """The time expiry is judged by: this machine's, unless it is behind what was `seen` (Unix seconds)."""
    from phase.trust import clock

    return clock.trusted_now(last_seen=seen)
