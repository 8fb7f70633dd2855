"""The table of known nodes: each has answered; the nodes of one host, and of one distance, are limited."""

import heapq
from collections.abc import Iterator

from phase.discovery.dht.wire import Contact

#: Limit for the nodes at one distance (k in the paper).
K = 20
#: Limit for the nodes of one host, so that one host cannot crowd out all others.
MAX_OF_HOST = 1


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
        """The contacts nearest to a place, the nearest first."""
        target = int.from_bytes(place)
        return heapq.nsmallest(count, self, key=lambda one: one.number ^ target)

    def add(self, contact: Contact) -> Contact | None:
        """Add a node that has answered. Known nodes stay, unless they have gone.

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
            return bucket[0]
        bucket.append(contact)
        return None

    def drop(self, contact: Contact) -> None:
        """Forget a node that does not answer, but not a node with the same id elsewhere."""
        for bucket in self._buckets.values():
            if contact in bucket:
                bucket.remove(contact)
