"""One lookup in the DHT: decides which node to ask next, and when to stop. It sends nothing itself.

Sources: Kademlia (Maymounkov and Mazieres, 2002), section 2.3; disjoint paths: S/Kademlia (Baumgart and
Mies, 2007), section 4.4. The bounds against hostile nodes are our own.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from phase.discovery.dht import wire
from phase.discovery.dht.table import MAX_OF_HOST, K, spread
from phase.discovery.dht.wire import Contact

#: Paths of one lookup: a node is asked on the path on which it was named, so that who lies about neighbours
#: leads one path astray and not all. What two paths have named is asked on any.
PATHS = 3
#: Limit for the nodes that one lookup asks.
MAX_ASKED = 64
#: A lookup ends after this many nodes that other nodes named and that did not answer.
MAX_SILENT = 24
#: Limit for the nodes of one path that are known and not asked yet.
_MAX_CANDIDATES = 80
#: Limit for the questions to one host.
_MAX_TRIES = 3
#: Once so many hosts of one network (/24) were asked, those of other networks are asked before more of it.
_MANY_OF_NETWORK = 8


class _Named(NamedTuple):
    """What is known of a candidate; worked out once, since each is compared again and again.

    Attributes:
        teller: host that has named it; None if it was known from the start.
        chosen: whether its holder may have chosen its id: it comes after all whose addresses decide them.
        distance: to the place.
        network: of its address.
    """

    teller: str | None
    chosen: bool
    distance: int
    network: str

    @property
    def order(self) -> tuple[bool, int]:
        """Nearer comes first."""
        return self.chosen, self.distance


class Lookup:
    """The state of one lookup.

    Args:
        place: 20 bytes; nodes near to it are asked first.
        known: nodes to begin with.
        own: id of this node, which is never asked.
        nearest_only: stop when no candidate is nearer than the `K` nearest nodes that have answered.
    """

    def __init__(self, place: bytes, known: Iterable[Contact], *, own: bytes, nearest_only: bool) -> None:
        self._target = int.from_bytes(place)
        self._own = own
        #: May be set later: what was looked for is found, and only the nearest are still of interest.
        self.nearest_only = nearest_only
        #: For each path the nodes that can be asked.
        self._paths: list[dict[Contact, _Named]] = [{} for _ in range(PATHS)]
        #: Nodes that can be asked, and that were named on several paths.
        self._shared: dict[Contact, _Named] = {}
        #: The path of each node that was ever named; `PATHS` for a shared one that was not asked yet.
        self._path_of: dict[Contact, int] = {}
        self._asked: dict[Contact, _Named] = {}
        #: Nodes that have answered, the nearest first.
        self._answered: list[tuple[tuple[bool, int], Contact]] = []
        self._turn = 0
        #: By host: questions so far; and those among them that may still be, or have been, answered.
        self._tries: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._of_network: Counter[str] = Counter()
        #: By host: nodes that it has named and that did not answer, less those that did.
        self._misled: Counter[str] = Counter()
        self._silent = 0
        for number, each in enumerate(sorted(known, key=lambda one: self._named(one, None).order)):
            self._add(each, None, number % PATHS)

    @property
    def nearest(self) -> list[Contact]:
        """The `K` nearest nodes that have answered, the nearest first; few of one network if possible."""
        return spread([contact for _, contact in self._answered], K)

    def choose(self) -> Contact | None:
        """Choose the node to ask next; None if no node can be asked now."""
        if len(self._asked) >= MAX_ASKED or self._silent >= MAX_SILENT:
            return None
        last = self._last()
        shared = self._best(self._shared, last)
        best = [
            min((one for one in (self._best(path, last), shared) if one is not None), default=None)
            for path in self._paths
        ]
        # The paths by turns, but first those that have misled less.
        turns = ((self._turn + number) % PATHS for number in range(PATHS))
        possible = [(one[0][0], number, one[1]) for number in turns if (one := best[number]) is not None]
        if not possible:
            return None
        _, turn, chosen = min(possible, key=lambda each: each[0])
        self._turn = turn + 1
        among = self._shared if chosen in self._shared else self._paths[turn]
        said = self._asked[chosen] = among.pop(chosen)
        self._path_of[chosen] = turn
        self._tries[chosen.host] += 1
        self._taken[chosen.host] += 1
        self._of_network[said.network] += 1
        return chosen

    def silent(self, contact: Contact) -> None:
        """A node that was asked did not answer."""
        self._taken[contact.host] -= 1
        teller = self._asked[contact].teller
        if teller is not None:
            self._misled[teller] += 1
            self._silent += 1

    def answered(self, contact: Contact, nodes: list[tuple[bytes, str, int]]) -> None:
        """A node that was asked has answered.

        Args:
            contact: that node.
            nodes: the nodes that its answer names, as they came from the network.
        """
        teller, *_ = said = self._asked[contact]
        insort(self._answered, (said.order, contact))
        if teller is not None:
            self._misled[teller] -= 1
        # Who begins with one node has one path; what that one names is dealt to all.
        free = [number for number in range(PATHS) if number not in self._path_of.values()]
        for each in wire.usable(nodes, teller=contact.host):
            path = self._path_of[contact]
            if each.id != self._own and each not in self._path_of:
                self._add(each, contact.host, free.pop() if free else path)
            elif each not in self._asked and self._path_of.get(each, path) not in (path, PATHS):
                self._shared[each] = self._paths[self._path_of[each]].pop(each)
                self._path_of[each] = PATHS

    def _add(self, contact: Contact, teller: str | None, path: int) -> None:
        if len(self._paths[path]) < _MAX_CANDIDATES:
            self._paths[path][contact] = self._named(contact, teller)
            self._path_of[contact] = path

    def _best(
        self, among: dict[Contact, _Named], last: tuple[bool, int] | None
    ) -> tuple[tuple[int, bool, bool, int], Contact] | None:
        """The best that may be asked now, and its rank."""
        possible = ((self._rank(said), one) for one, said in among.items() if self._may_ask(one, said, last))
        return min(possible, default=None)

    def _named(self, contact: Contact, teller: str | None) -> _Named:
        return _Named(teller, not contact.bound, contact.number ^ self._target, contact.network)

    def _may_ask(self, contact: Contact, said: _Named, last: tuple[bool, int] | None) -> bool:
        return (
            (last is None or said.order < last)
            and self._taken[contact.host] < MAX_OF_HOST
            and self._tries[contact.host] < _MAX_TRIES
        )

    def _rank(self, said: _Named) -> tuple[int, bool, bool, int]:
        """The order of candidates: first those of hosts that have not named more silent than other nodes."""
        misled = 0 if said.teller is None else max(self._misled[said.teller], 0)
        return misled, said.chosen, self._of_network[said.network] >= _MANY_OF_NETWORK, said.distance

    def _last(self) -> tuple[bool, int] | None:
        """What a candidate must come before; None if any will do."""
        if self.nearest_only and len(self._answered) >= K:
            return self._answered[K - 1][0]
        return None
