"""One lookup in the DHT: decides which node to ask next, and when to stop. It sends nothing itself.

Source: Kademlia (Maymounkov and Mazieres, 2002), section 2.3. The bounds against hostile nodes are our own.
"""

from collections import Counter
from collections.abc import Iterable

from phase.discovery.dht import wire
from phase.discovery.dht.table import MAX_OF_HOST, K
from phase.discovery.dht.wire import Contact

#: Limit for the nodes that one lookup asks.
MAX_ASKED = 64
#: A lookup ends after this many nodes that other nodes named and that did not answer.
MAX_SILENT = 24
#: Limit for the nodes that are known and not asked yet.
_MAX_CANDIDATES = 256
#: Limit for the questions to one host.
_MAX_TRIES = 3


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
        self._nearest_only = nearest_only
        #: Nodes that can be asked, and the host that named each; None for those known from the start.
        self._candidates: dict[Contact, str | None] = dict.fromkeys(known)
        #: The same for nodes that have been asked.
        self._asked: dict[Contact, str | None] = {}
        self._answered: list[Contact] = []
        #: By host: questions so far; and those among them that may still be, or have been, answered.
        self._tries: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        #: By host: nodes that it has named and that did not answer.
        self._misled: Counter[str] = Counter()

    @property
    def nearest(self) -> list[Contact]:
        """The `K` nearest nodes that have answered, the nearest first."""
        return sorted(self._answered, key=self._distance)[:K]

    def choose(self) -> Contact | None:
        """Choose the node to ask next; None if no node can be asked now."""
        if len(self._asked) >= MAX_ASKED or self._misled.total() >= MAX_SILENT:
            return None
        bound = self._bound()
        possible = (
            each
            for each in self._candidates
            if self._distance(each) < bound
            and self._taken[each.host] < MAX_OF_HOST
            and self._tries[each.host] < _MAX_TRIES
        )
        chosen = min(possible, key=self._rank, default=None)
        if chosen is not None:
            self._asked[chosen] = self._candidates.pop(chosen)
            self._tries[chosen.host] += 1
            self._taken[chosen.host] += 1
        return chosen

    def silent(self, contact: Contact) -> None:
        """A node that was asked did not answer."""
        self._taken[contact.host] -= 1
        teller = self._asked[contact]
        if teller is not None:
            self._misled[teller] += 1

    def answered(self, contact: Contact, nodes: list[tuple[bytes, str, int]]) -> None:
        """A node that was asked has answered.

        Args:
            contact: that node.
            nodes: the nodes that its answer names, as they came from the network.
        """
        self._answered.append(contact)
        for each in wire.usable(nodes, teller=contact.host):
            if len(self._candidates) < _MAX_CANDIDATES and each.id != self._own and each not in self._asked:
                self._candidates.setdefault(each, contact.host)

    def _rank(self, contact: Contact) -> tuple[int, bool, int]:
        """The order of candidates: first those named by hosts that have named no silent node."""
        teller = self._candidates[contact]
        misled = 0 if teller is None else self._misled[teller]
        return misled, teller is not None, self._distance(contact)

    def _bound(self) -> int:
        """The distance that a candidate must be below."""
        if self._nearest_only and len(self._answered) >= K:
            return self._distance(self.nearest[-1])
        return 1 << 8 * wire.ID_BYTES

    def _distance(self, contact: Contact) -> int:
        return contact.number ^ self._target
