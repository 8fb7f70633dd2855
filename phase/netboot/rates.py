"""How often one sender is answered."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from time import monotonic

#: Senders that are remembered; the one that was heard longest ago is forgotten first.
MAX_SENDERS = 4096


class Rates:
    """Counts what each sender may still ask for.

    Args:
        burst: how many at once.
        every: seconds for one more.
        clock: monotonic seconds.
    """

    def __init__(self, burst: int, every: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._burst = burst
        self._every = every
        self._clock = clock
        # When each sender's whole burst is there again.
        self._full: OrderedDict[Hashable, float] = OrderedDict()

    def allow(self, sender: Hashable) -> bool:
        """Whether a sender is answered once more; it is counted, if so."""
        now = self._clock()
        full = max(self._full.pop(sender, now), now)
        allowed = full - now <= (self._burst - 1) * self._every
        self._full[sender] = full + self._every if allowed else full
        if len(self._full) > MAX_SENDERS:
            self._full.popitem(last=False)
        return allowed
