"""Limits the rate of each host's requests: a flood, or requests in another's name, get few answers."""

from collections import OrderedDict

#: Limit for the hosts that are remembered; the least recent is forgotten first.
MAX_HOSTS = 1024


class Budget:
    """A bucket for each host, and one for all of them together.

    Args:
        rate: units a second that a host's bucket gains.
        burst: units it holds.
        together: all hosts together have this many times both.
    """

    def __init__(self, rate: float, burst: float, *, together: int = 32) -> None:
        self._rate = rate
        self._burst = burst
        self._all = (burst * together, 0.0)
        self._together = together
        self._hosts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, host: str, amount: float, now: float) -> bool:
        """Take an amount, if it is left; returns whether it was.

        Args:
            host: address.
            amount: units.
            now: seconds on a clock that never goes back.
        """
        left, since = self._hosts.pop(host, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        whole, then = self._all
        whole = min(self._burst * self._together, whole + (now - then) * self._rate * self._together)
        enough = amount <= left and amount <= whole
        if enough:
            left, whole = left - amount, whole - amount
        self._hosts[host] = (left, now)
        self._all = (whole, now)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return enough
