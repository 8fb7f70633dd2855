"""Addresses that bring strangers: peers whose keys may not connect here.

Who a peer is, only the handshake shows, and that takes this side a millisecond of a processor. So an address
that has brought many strangers is refused before the handshake, which takes a quarter of that, until some
time has passed. It is not refused where somebody who may connect has come from it before: he may share it
with them. Only handshakes that were finished count, and for these nobody can forge the address.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from phase.provider.limits import client_of

T = TypeVar("T")
#: Addresses that are remembered of each kind; the oldest is forgotten.
MOST = 4096


class Strangers:
    """What is known of addresses: hosts of IPv4, and networks of IPv6 that one customer has (/64).

    Args:
        most: strangers that an address may bring at once.
        seconds: after which it may bring another one.
        clock: in seconds.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        #: How many it has brought, less those that are past, and when that was so.
        self._brought: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._friends: OrderedDict[str, None] = OrderedDict()

    def came(self, place: str) -> None:
        """A stranger has come from an address.

        Args:
            place: `HOST:PORT`, the host of IPv6 in brackets.
        """
        host = _host(place)
        _remember(self._brought, host, (self._number(host) + 1, self._clock()))

    def friend(self, place: str) -> None:
        """Somebody who may connect has come from an address."""
        _remember(self._friends, _host(place), None)

    def too_many(self, place: str) -> bool:
        """Whether an address is to be refused unheard."""
        host = _host(place)
        return self._number(host) > self._most - 1 and host not in self._friends

    def _number(self, host: str) -> float:
        number, at = self._brought.get(host, (0.0, 0.0))
        return max(number - (self._clock() - at) / self._seconds, 0.0)


def _host(place: str) -> str:
    return client_of((place.rpartition(":")[0].strip("[]"), 0))


def _remember(known: OrderedDict[str, T], host: str, what: T) -> None:
    known[host] = what
    known.move_to_end(host)
    if len(known) > MOST:
        known.popitem(last=False)
