"""How soon a crowd that boots at once has its release, with and without sharing: a model.

    python -m bench.crowd_size [MACHINES...] [--release MB] [--provider MBIT] [--link MBIT] [--take MB]

Machines on one network start within two seconds. The provider's link is divided among those that ask it;
each machine's link, and what it can take and verify, bounds what it gets; a switch never does. The rules and
numbers of sharing are the product's (`phase.fetch.crowd`, `phase.fetch.others`, `phase.provider.peers`): who
is told of whom, how many connections, how old a bitmap is, what is asked of the provider. Time goes in steps
of 0.1 s. Not in the model: lost packets, processors that several machines share, and the provider's work for
each question. `scenarios/test_crowd.py` measures eight real machines.

Prints the seconds until the first and until the last machine has all of it, and how often the provider sent
it.
"""

import argparse
import random
import sys
from typing import NamedTuple

from phase.fetch.crowd import LOOK_SECONDS, MAX_PEERS
from phase.fetch.others import ASKING, BEGIN_SECONDS, MOST_SECONDS, RUN
from phase.fetch.sharing import MAX_CONNECTIONS
from phase.provider.peers import MAX_PEERS as TABLE
from phase.provider.peers import MOST_TOLD

STEP = 0.1
SPREAD = 2.0
#: Seconds from the last byte to the handoff, in which a machine still gives to others.
AFTER = 0.5


class Network(NamedTuple):
    """What is given.

    Attributes:
        release: bytes.
        provider: bytes a second of its link.
        link: bytes a second of each machine's link, in each direction.
        take: bytes a second that a machine can take and verify.
    """

    release: int
    provider: float
    link: float
    take: float


class Result(NamedTuple):
    """Seconds until the first and the last machine has all; copies that the provider sent."""

    first: float
    last: float
    copies: float


class _Machine:
    """One machine: what it has, as sets of bits, one for each part that is asked for at once."""

    def __init__(self, start: float, whole: int) -> None:
        self.start = start
        self.need = whole
        #: What others see of what it has, and what it asks for now.
        self.have = self.shown = self.asked = 0
        self.peers: dict[_Machine, float] = {}
        self.readers = 0
        self.part = 0
        self.left = 0.0
        #: When it began to ask the provider, and before when it does not ask again.
        self.began = self.next = 0.0
        self.done = 0.0
        self.from_peers = self.peer_rate = self.provider_rate = 0.0

    def get(self, part: int) -> None:
        """A part has come."""
        self.have |= part
        self.need &= ~part
        self.asked &= ~part

    def leave(self) -> None:
        """Ask no machine any more."""
        for peer in self.peers:
            peer.readers -= 1
        self.peers.clear()


def _pick(bits: int, chance: random.Random) -> int:
    """One of the bits of a set, from a random place on."""
    above = bits >> (turn := chance.randrange(bits.bit_length())) << turn
    return above & -above


class Crowd:
    """A crowd that shares.

    Args:
        count: machines.
        network: theirs.
        seed: of what chance decides.
    """

    def __init__(self, count: int, network: Network, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._network = network
        self._parts = -(-network.release // RUN)
        self._size = network.release / self._parts
        whole = (1 << self._parts) - 1
        self._all = [_Machine(self._chance.uniform(0, SPREAD), whole) for _ in range(count)]
        self._table: list[_Machine] = []
        self._sent = 0.0

    def run(self) -> Result:
        """Until the last has all of it."""
        step = 0
        while not all(each.done for each in self._all):
            now = step * STEP
            here = [each for each in self._all if each.start <= now and not 0 < each.done < now - AFTER]
            fetching = [each for each in here if not each.done]
            self._chance.shuffle(fetching)
            if step % round(1 / STEP) == 0:
                self._meet(fetching)
            if step % round(LOOK_SECONDS / STEP) == 0:
                for each in here:
                    each.shown = each.have
            self._provide(fetching, now)
            for each in fetching:
                self._share(each, now)
            step += 1
        ends = [each.done for each in self._all]
        return Result(min(ends), max(ends), self._sent / self._network.release)

    def _meet(self, fetching: list[_Machine]) -> None:
        """Each asks the provider who else is there, and connects to those that have room."""
        for each in fetching:
            each.peer_rate, each.from_peers = each.from_peers, 0.0
            for gone in [peer for peer in each.peers if peer.done]:
                del each.peers[gone]
            self._table = [one for one in self._table if one is not each and not one.done][-(TABLE - 1) :]
            told = self._chance.sample(self._table, min(MOST_TOLD, len(self._table)))
            self._table.append(each)
            for peer in told:
                room = len(each.peers) < MAX_PEERS and peer.readers < MAX_CONNECTIONS
                if peer not in each.peers and room:
                    each.peers[peer] = 0.0
                    peer.readers += 1

    def _provide(self, fetching: list[_Machine], now: float) -> None:
        """Divide the provider's link among those that ask it for a part."""
        turns = ASKING / max(len(fetching), 1)
        for each in fetching:
            if each.provider_rate == 0 and each.next <= now and self._chance.random() > turns:
                each.next = now + BEGIN_SECONDS
        asking = [each for each in fetching if each.part or (each.next <= now and self._choose(each, now))]
        share = self._network.provider * STEP / max(len(asking), 1)
        share = min(share, self._network.link * STEP, self._network.take * STEP)
        for each in asking:
            each.provider_rate = share / STEP
            budget = share
            while budget > 0 and (each.part or self._choose(each, now)):
                sent = min(budget, each.left)
                self._sent += sent
                budget -= sent
                each.left -= sent
                if each.left <= 0:
                    each.get(each.part)
                    each.part = 0
                    took = max(now - each.began, STEP * self._size / share)
                    rest = min(took * max(1 / turns - 1, 0), MOST_SECONDS)
                    each.next = now + rest * self._chance.uniform(0.5, 1.5)
                    if each.next > now:
                        break

    def _choose(self, each: _Machine, now: float) -> bool:
        """Whether it asks the provider, and for what."""
        free = each.need & ~each.asked
        theirs = 0
        for peer in each.peers:
            theirs |= peer.shown
        if each.peers and not free & ~theirs:
            if each.peer_rate > each.provider_rate:
                return False
        else:
            free &= ~theirs
        if not free:
            return False
        each.part, each.left, each.began = _pick(free, self._chance), self._size, now
        each.asked |= each.part
        return True

    def _share(self, each: _Machine, now: float) -> None:
        """Take from the others what they have, as far as the links go."""
        network = self._network
        own = min(network.link, network.take) * STEP / max(len(each.peers), 1)
        for peer in each.peers:
            credit = each.peers[peer] + min(own, network.link * STEP / max(peer.readers, 1))
            while credit >= self._size and (free := peer.shown & each.need & ~each.asked):
                each.get(_pick(free, self._chance))
                each.from_peers += self._size
                credit -= self._size
            # Time in which there was nothing to ask for does not come back.
            each.peers[peer] = min(credit, 2 * self._size + own)
        if not each.need:
            each.done = now + STEP
            each.leave()


def alone(count: int, network: Network) -> Result:
    """The same without sharing: the provider's link is divided by all of them, to the end."""
    seconds = max(
        count * network.release / network.provider, network.release / min(network.link, network.take)
    )
    return Result(seconds, seconds + (SPREAD if count > 1 else 0), float(count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("machines", nargs="*", type=int, default=[1, 8, 64, 256, 1000, 4000, 10_000])
    parser.add_argument("--release", type=float, default=40.0, help="megabytes")
    parser.add_argument("--provider", type=float, nargs="*", default=[100, 1000], help="Mbit/s of its link")
    parser.add_argument("--link", type=float, help="Mbit/s of each machine's link; as the provider's")
    parser.add_argument("--take", type=float, default=60, help="MB/s that a machine can take and verify")
    given = parser.parse_args()
    print("     provider machines  alone: last  shared: first    last  copies")
    for rate in given.provider:
        for count in given.machines:
            link = (given.link or rate) * 125e3
            network = Network(int(given.release * 1e6), rate * 125e3, link, given.take * 1e6)
            without, shared = alone(count, network), Crowd(count, network, 1).run()
            print(
                f"{rate:>6.0f} Mbit/s {count:>8} {without.last:>10.1f} s {shared.first:>12.1f} s"
                f" {shared.last:>5.1f} s {shared.copies:>7.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
