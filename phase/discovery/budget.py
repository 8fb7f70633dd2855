"""How much each host may ask for: who floods, or asks in another's name, gets a trickle."""

from collections import OrderedDict

#: Hosts that are remembered; the one not heard of for longest is forgotten.
MAX_HOSTS = 1024


class Budget:
    """A bucket for each host, and one for all of them together.

    Args:
        rate: units a second that a host's bucket gains.
        burst: units it holds.
        together: how many times of both all hosts together have.
    """

    def __init__(self, rate: float, burst: float, *, together: int = 32) -> None:
        self._rate = rate
        self._burst = burst
        self._all = (burst * together, 0.0)
        self._together = together
        self._hosts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, host: str, amount: float, now: float) -> bool:
        """Whether there is as much left; then it is taken.

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
