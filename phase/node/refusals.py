"""Counts what a node refuses, and logs it without letting strangers fill the log."""

import logging
from collections import Counter
from time import monotonic

from phase.errors import printable

_log = logging.getLogger(__name__)
#: Seconds between two lines of the same reason.
LOG_SECONDS = 10.0


class Refusals:
    """Refusals by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said: dict[str, tuple[float, int]] = {}

    def add(self, reason: str, who: str, detail: str) -> None:
        """Count one, and log the first of its reason in a while.

        Args:
            reason: one of few: what is counted by it is kept for ever.
            who: was refused.
            detail: for people; it may hold text of others.
        """
        self.counts[reason] += 1
        now, (at, told) = monotonic(), self._said.get(reason, (-LOG_SECONDS, 0))
        if now - at >= LOG_SECONDS:
            more = self.counts[reason] - told
            self._said[reason] = now, self.counts[reason]
            among = f" ({more} of this kind since the last such line)" if more > 1 else ""
            _log.info("%s is refused: %s%s", printable(who)[:100], printable(detail)[:200], among)
