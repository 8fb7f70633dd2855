"""What runs the node's jobs: a pool of warm workers."""

import logging
from pathlib import Path

from phase.jobs.cache import Cache, CacheError, Directory
from phase.jobs.pool import Event, Pool

#: Bytes of compiled modules in memory.
MEMORY_BYTES = 64 << 20
_log = logging.getLogger(__name__)


def _told(event: Event, reason: str) -> None:
    _log.warning("%s: %s", event, reason)


class Workers(Pool):
    """A pool whose troubles are in the log.

    Args:
        slots: jobs at a time.
        compiled: directory of compiled modules; None to hold them in memory alone.

    Raises:
        EngineError: there is no engine to load, or it cannot run on this processor.
    """

    def __init__(self, slots: int, compiled: Path | None = None) -> None:
        super().__init__(slots, told=_told, cache=Cache(_directory(compiled), MEMORY_BYTES))


def _directory(path: Path | None) -> Directory | None:
    if path is None:
        return None
    try:
        return Directory(str(path))
    except (CacheError, OSError) as error:
        _log.warning("compiled modules are held in memory alone: %s", error)
        return None
