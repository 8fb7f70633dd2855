"""Limits for bytes a second."""

from time import monotonic


class Pace:
    """So many bytes a second, with some that were saved up.

    Args:
        rate: bytes a second.
        burst: bytes that may be saved up.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, monotonic()

    def take(self, size: int) -> float:
        """Take bytes, even those that are not there yet.

        Returns:
            Seconds to wait before the next ones are taken; 0 while there are some left.
        """
        self._left = self._now() - size
        return max(-self._left / self._rate, 0.0)

    def spend(self, size: int) -> bool:
        """Take bytes if they are there; returns whether they were."""
        left = self._now()
        enough = left >= size
        self._left = left - size if enough else left
        return enough

    def _now(self) -> float:
        now = monotonic()
        left = min(self._left + (now - self._at) * self._rate, self._burst)
        self._at = now
        return left
