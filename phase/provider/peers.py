"""Where machines that fetch the same release find each other: hints, kept for seconds and told on one link.

A machine that shares what it fetches asks for others, and says its port; its address is that of its
connection. It is told others on the network interface through which it is reached itself. So a machine
beyond a router is not told an address here, and its own address is not told.
"""

import ipaddress
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import NamedTuple

from phase.discovery.interfaces import Interface, Ip, interfaces
from phase.discovery.records import DiscoveryError

#: Ports that are taken: those of services are below.
LOWEST_PORT, HIGHEST_PORT = 32_768, 65_535
#: Limits for the machines of one release, for one address among them, and for releases.
MAX_PEERS, MAX_PER_HOST, MAX_RELEASES = 64, 4, 16
#: Machines that one is told.
MOST_TOLD = 8
#: Seconds that a machine is told to others after its last question.
KEEP_SECONDS = 10.0
#: Seconds over which the machines of a release are counted: each asks once a second while it shares.
COUNT_SECONDS = 2.0
#: Machines that are counted.
MOST_COUNTED = 1 << 16
#: Seconds after which this machine's networks are looked at again.
_LOOK_SECONDS = 5.0
_PORT = re.compile("[1-9][0-9]{4}")


class Seen(NamedTuple):
    """When a machine has last said that it shares.

    Attributes:
        link: number of the interface that it is on.
        host: its address.
        port: its port.
        at: monotonic seconds.
    """

    link: int
    host: str
    port: int
    at: float


class _Count:
    """How many machines ask for others. One that asks often counts once."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._before = 0
        self._asked: set[tuple[str, int]] = set()
        self._of_host: Counter[str] = Counter()

    def note(self, asks: "Seen") -> int:
        """A machine has asked; about how many there are."""
        if asks.at - self._since >= COUNT_SECONDS:
            self._since, self._before = asks.at, len(self._asked)
            self._asked.clear()
            self._of_host.clear()
        who = asks.host, asks.port
        room = self._of_host[asks.host] < MAX_PER_HOST and len(self._asked) < MOST_COUNTED
        if who not in self._asked and room:
            self._asked.add(who)
            self._of_host[asks.host] += 1
        return self._before or len(self._asked)


#: The machines of each release.
Table = dict[str, list[Seen]]


class Peers:
    """The machines that have asked this process, and those that the others report.

    Args:
        heard: the tables of other processes.
        links: this machine's network interfaces.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        heard: Callable[[], Iterable[Mapping[str, list[Seen]]]] = lambda: (),
        links: Callable[[], list[Interface]] = interfaces,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._heard = heard
        self._links = links
        self._clock = clock
        self._found: list[Interface] = []
        self._looked = -_LOOK_SECONDS
        #: What this process knows itself.
        self.own: Table = {}
        self._counts: dict[str, _Count] = {}

    def ask(self, digest: str, address: object, port: str) -> list[str]:
        """Take note of a machine, say how many there are, and name some.

        A machine of another network is not noted, and is told of no others.

        Args:
            digest: hash of an artifact of its release.
            address: of its connection, as a socket has it.
            port: that it shares on, as it says; it is not noted where that cannot be one.
        """
        now = self._clock()
        link, host = self._link(address)
        if link is None:
            return ["1"]
        number = int(port) if _PORT.fullmatch(port) else 0
        asks = Seen(link, host, number, now)
        others = [each for each in self._all(digest, now) if each.link == link and not _same(each, asks)]
        if LOWEST_PORT <= number <= HIGHEST_PORT:
            self._note(digest, asks)
        some = random.sample(others, min(MOST_TOLD, len(others)))
        return [str(max(self._count(digest, asks), len(others) + 1)), *map(_text, some)]

    def _count(self, digest: str, asks: Seen) -> int:
        """About how many machines fetch it: each process is asked by its share of them."""
        count = self._counts.pop(digest, None) or _Count(asks.at)
        self._counts[digest] = count
        if len(self._counts) > MAX_RELEASES:
            del self._counts[next(iter(self._counts))]
        return count.note(asks) * (1 + sum(1 for _ in self._heard()))

    def _all(self, digest: str, now: float) -> list[Seen]:
        found: dict[tuple[str, int], Seen] = {}
        for table in (self.own, *self._heard()):
            for each in table.get(digest, ()):
                if now - each.at <= KEEP_SECONDS:
                    found[each.host, each.port] = each
        return list(found.values())

    def _note(self, digest: str, new: Seen) -> None:
        """The newest come last; the oldest go first."""
        known = [
            each
            for each in self.own.pop(digest, ())
            if new.at - each.at <= KEEP_SECONDS and not _same(each, new)
        ]
        of_host = [each for each in known if each.host == new.host]
        if len(of_host) >= MAX_PER_HOST:
            known.remove(of_host[0])
        self.own[digest] = [*known[-(MAX_PEERS - 1) :], new]
        if len(self.own) > MAX_RELEASES:
            del self.own[next(iter(self.own))]

    def _link(self, address: object) -> tuple[int | None, str]:
        """The interface that an address is on, and the address in its usual form."""
        if not isinstance(address, tuple):
            return None, ""
        try:
            ip: Ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        except ValueError:
            return None, ""
        ip = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
        if ip.version == 6 and ip.is_link_local:
            return (address[3] if len(address) > 3 else None), str(ip)
        return next((each.number for each in self._now() if each.on_link(ip)), None), str(ip)

    def _now(self) -> list[Interface]:
        if self._clock() - self._looked >= _LOOK_SECONDS:
            try:
                self._found = self._links()
            except DiscoveryError:
                self._found = []  # then no machine is known to be near
            self._looked = self._clock()
        return self._found


def _same(one: Seen, other: Seen) -> bool:
    return (one.host, one.port) == (other.host, other.port)


def _text(seen: Seen) -> str:
    return f"[{seen.host}]:{seen.port}" if ":" in seen.host else f"{seen.host}:{seen.port}"
