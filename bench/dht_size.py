"""How far a lookup in the DHT goes in networks that fit no machine: the product's own lookup, drawn tables.

    python -m bench.dht_size [NODES...]

`phase.discovery.dht.lookup` decides whom to ask; the nodes that it asks are not there, and answer with the
nearest of a table that is drawn when they are asked: up to twenty random nodes of each distance. No sockets,
no time, nobody lies or is gone. Prints the mean number of hops to the first of the twenty nodes that keep an
announcement, and the questions until then and until the lookup ends.
"""

import argparse
import random
import statistics
import sys
from array import array
from bisect import bisect_left

from phase.discovery.dht.lookup import Lookup
from phase.discovery.dht.table import K
from phase.discovery.dht.wire import Contact

_BITS = 64
LOOKUPS = 100


class _Network:
    """Nodes with sorted ids, of which only the first 64 bits are drawn."""

    def __init__(self, count: int, chance: random.Random) -> None:
        self._chance = chance
        self._ids = array("Q", sorted(chance.getrandbits(_BITS) for _ in range(count)))

    def contact(self, at: int) -> Contact:
        """A node; neighbours have addresses of different networks."""
        mixed = at * 0x9E3779B1 % (1 << 32)
        host = ".".join(str(mixed >> shift & 255) for shift in (24, 16, 8, 0))
        return Contact(self._ids[at].to_bytes(8) + bytes(12), host, 4000)

    def nearest(self, place: int) -> list[Contact]:
        """The twenty nodes nearest to a place, as nobody can know them."""
        at = bisect_left(self._ids, place)
        around = range(max(at - 40 * K, 0), min(at + 40 * K, len(self._ids)))
        return [self.contact(each) for each in sorted(around, key=lambda each: self._ids[each] ^ place)[:K]]

    def table(self, own: int, place: int) -> list[Contact]:
        """The nearest to a place of a table, drawn from that node's buckets."""
        found: list[int] = []
        for depth in range(_BITS):
            shift = _BITS - 1 - depth
            low = ((own >> shift) ^ 1) << shift
            begin, end = bisect_left(self._ids, low), bisect_left(self._ids, low + (1 << shift))
            found += self._chance.sample(range(begin, end), min(K, end - begin))
            if end - begin <= 1 and depth > 40:
                break
        found.sort(key=lambda each: self._ids[each] ^ place)
        return [self.contact(each) for each in found[:K]]


def _look(network: _Network, chance: random.Random) -> tuple[int, int, int]:
    """Hops, questions until then, questions in all."""
    place, own = chance.getrandbits(_BITS), chance.getrandbits(_BITS)
    keepers = set(network.nearest(place))
    known = network.table(own, place)
    lookup = Lookup(place.to_bytes(8) + bytes(12), known, own=b"", nearest_only=False)
    depth = dict.fromkeys(known, 1)
    asked = hops = first = 0
    while (chosen := lookup.choose()) is not None:
        asked += 1
        if chosen in keepers and not first:
            hops, first = depth[chosen], asked
            lookup.nearest_only = True
        named = network.table(int.from_bytes(chosen.id[:8]), place)
        for each in named:
            depth.setdefault(each, depth[chosen] + 1)
        lookup.answered(chosen, [(each.id, each.host, each.port) for each in named])
    return hops, first, asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("nodes", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    chance = random.Random(1)  # noqa: S311  # not a secret
    for count in parser.parse_args().nodes:
        network = _Network(count, chance)
        found = [_look(network, chance) for _ in range(LOOKUPS)]
        hops, first, asked = (statistics.fmean(one[n] for one in found) for n in range(3))
        missed = sum(not one[1] for one in found)
        print(
            f"{count} nodes: {hops:.2f} hops, {first:.1f} questions, {asked:.1f} to the end; {missed} missed"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
