"""A distributed hash table (DHT) of signed hints: which hosts have a release of a channel and architecture.

Kademlia in the wire format of the library of that name, so that its ordinary nodes can take part. Unlike the
library, it only keeps, passes on and uses announcements that are signed, current, in their place, and sent
by the host that they name; and every answer, table and search has a limit.

For the provider and the seed; imports neither an HTTP library nor zeroconf. `phase.discovery` imports it
only when there is a node to ask.
"""

from phase.discovery.dht.node import Dht
from phase.discovery.dht.search import Search

__all__ = ["Dht", "Search"]
