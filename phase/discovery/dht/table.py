"""The table of known nodes: each has answered; the nodes of one host, and of one distance, are limited."""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

from phase.discovery.dht.wire import Contact

#: Limit for the nodes at one distance (k in the paper).
K = 20
#: Limit for the nodes of one host, so that one host cannot crowd out all others.
MAX_OF_HOST = 1
#: Of one network (/24) so many are taken before all of other networks; who rents a network has all of it.
MAX_OF_NETWORK = 2


def spread(ordered: Sequence[Contact], count: int) -> list[Contact]:
    """The first of some nodes, in their order; more than a few of one network only where others lack."""
    of_network: Counter[str] = Counter()
    crowd: set[Contact] = set()
    for each in ordered:
        of_network[each.network] += 1
        if of_network[each.network] > MAX_OF_NETWORK:
            crowd.add(each)
    chosen = heapq.nsmallest(count, range(len(ordered)), key=lambda at: (ordered[at] in crowd, at))
    return [ordered[at] for at in sorted(chosen)]


class Table:
    """A node's contacts by their distance to it: a bucket for each power of two.

    Args:
        own: this node's id.
    """

    def __init__(self, own: bytes) -> None:
        self._own = int.from_bytes(own)
        # The one that answered last comes last.
        self._buckets: dict[int, list[Contact]] = {}

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets.values():
            yield from bucket

    def near(self, place: bytes, count: int = K) -> list[Contact]:
        """The contacts nearest to a place, the nearest first; those that have chosen their ids come last."""
        target = int.from_bytes(place)
        return heapq.nsmallest(count, self, key=lambda one: (not one.bound, one.number ^ target))

    def add(self, contact: Contact) -> Contact | None:
        """Add a node that has answered. Known nodes stay, unless they have gone or have chosen their ids.

        Returns:
            None, or without room for it: the node that has not answered for longest, and may have gone.
        """
        for other in list(self):
            if other[1:] == contact[1:] and other.id != contact.id:
                self.drop(other)  # it was started anew
            elif other.id == contact.id and other[1:] != contact[1:]:
                return other  # a node cannot take another's place by using its id
        if sum(one.host == contact.host for one in self if one != contact) >= MAX_OF_HOST:
            return None
        bucket = self._buckets.setdefault((contact.number ^ self._own).bit_length(), [])
        if contact in bucket:
            bucket.remove(contact)
        elif len(bucket) >= K:
            worse = next((one for one in bucket if not one.bound), None)
            if worse is None or not contact.bound:
                return bucket[0]
            bucket.remove(worse)
        bucket.append(contact)
        return None

    def drop(self, contact: Contact) -> None:
        """Forget a node that does not answer, but not a node with the same id elsewhere."""
        for bucket in self._buckets.values():
            if contact in bucket:
                bucket.remove(contact)
