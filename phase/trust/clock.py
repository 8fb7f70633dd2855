"""The time to check expiry with, on machines whose clock may be wrong."""

import time
from datetime import UTC, datetime

#: The last day that every format here can hold.
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


def trusted_now(
    build_time: float = 0, last_seen: datetime | float | None = None, *, system: float | None = None
) -> datetime:
    """The latest time known to have been reached.

    A machine without a battery starts in 1970, and would take expired metadata for fresh. So the time is
    never earlier than the build of its image, nor than its last refresh.

    Args:
        build_time: when the image was built, Unix seconds.
        last_seen: the time of the last refresh, if one is remembered.
        system: the system clock, Unix seconds; read when left out.

    Returns:
        UTC, whole seconds.
    """
    seen = last_seen.timestamp() if isinstance(last_seen, datetime) else last_seen or 0.0
    latest = max(time.time() if system is None else system, build_time, seen)
    return datetime.fromtimestamp(min(latest, _LATEST.timestamp()), UTC).replace(microsecond=0)
