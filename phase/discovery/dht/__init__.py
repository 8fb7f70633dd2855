"""A distributed hash table of signed hints: who has a release of a channel and architecture.

Kademlia in the wire format of the library of that name, so that its ordinary nodes can take part, with what
the library leaves to others: nothing is kept, passed on or believed that is not signed, current, in its
place and told by the host it names, and every answer, table and search has an end.

For the provider and the seed; imports neither an HTTP library nor zeroconf. `phase.discovery` imports it
only when there is a node to ask.
"""

from phase.discovery.dht.node import Dht
from phase.discovery.dht.search import Search

__all__ = ["Dht", "Search"]
