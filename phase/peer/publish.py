"""Tells others what this node can do, and finds nodes that can do something, in the DHT."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from phase.discovery.dht import Dht
from phase.discovery.records import DiscoveryError
from phase.identity import Identity
from phase.peer import records
from phase.peer.address import Address, join_host, split_host
from phase.peer.records import MAX_HOSTS, MAX_RELAYS, Capability
from phase.peer.seen import plausible
from phase.provider.announce import Offer

#: Seconds for which a change of the slots is kept back: each one costs a search and up to twenty messages.
STEADY_SECONDS = 30.0
#: Limit for the nodes that one search finds.
MAX_FOUND = 64
#: Seconds between two searches.
_AGAIN_SECONDS = 2.0


class Steady:
    """What a node can do, where a change of its free slots alone is kept back for a while.

    Args:
        can: what it can do now.
    """

    def __init__(self, can: Callable[[], Capability]) -> None:
        self._can = can
        self._told: Capability | None = None
        self._told_at = 0.0

    def __call__(self) -> Capability:
        """What to say of it now."""
        can, told, now = self._can(), self._told, time.monotonic()
        same = told is not None and msgspec.structs.replace(can, slots=told.slots) == told
        if told is not None and same and (can == told or now - self._told_at < STEADY_SECONDS):
            return told
        self._told, self._told_at = can, now
        return can


class Published:
    """What `phase.provider.announce.take_part` tells of this node.

    Args:
        identity: the node's.
        can: what it can do now, without addresses.
        address: where it can be reached now.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        identity: Identity,
        can: Callable[[], Capability],
        address: Callable[[], Address],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity, self._can, self._address, self._clock = identity, Steady(can), address, clock

    def offers(self) -> dict[bytes, Offer]:
        """What to announce, by place."""
        can, address = self._can(), self._address()
        return {
            records.key(can.arch, runtime): Offer(
                (can, address), lambda host: self._sign(can, address, host)
            )
            for runtime in can.runtimes
        }

    def _sign(self, can: Capability, address: Address, host: str) -> bytes:
        said = msgspec.structs.replace(can, hosts=hosts(address, host), relays=address.relays[:MAX_RELAYS])
        return records.sign(self._identity, said, now=self._clock())


def hosts(address: Address, first: str) -> tuple[str, ...]:
    """The hosts of a record.

    Args:
        address: where the node can be reached.
        first: the IPv4 address that is to stand first, since the receiver of the record sees it.
    """
    others = [(*split_host(each), each) for each in address.hosts]
    # The port of that very address; otherwise of any other of IPv4, since most NATs keep ports.
    ports = [port for host, port, _ in others if host == first]
    ports += [port for host, port, _ in others if ":" not in host]
    head = join_host(first, ports[0] if ports else others[0][1] if others else 1)
    rest = [each for host, _, each in others if each != head and plausible(host)]
    return (head, *rest[: MAX_HOSTS - 1])


async def find(
    arches: Sequence[str],
    runtime: str,
    *,
    peers: Sequence[tuple[str, int]],
    timeout: float,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Capability]:
    """Search the DHT for nodes; each is yielded once it is known, and again when it says something newer.

    Args:
        arches: wanted architectures.
        runtime: wanted runtime.
        peers: DHT nodes to begin with: hosts and ports.
        timeout: seconds.
        clock: seconds since the epoch, to recognise old records.

    Raises:
        DiscoveryError: no DHT node answers.
    """
    own = Dht(serves=False, clock=clock)
    heard: asyncio.Queue[Capability] = asyncio.Queue(MAX_FOUND)
    await own.start("0.0.0.0", 0)  # noqa: S104  # whichever way leads to them

    def take(found: Capability) -> None:
        if not heard.full():
            heard.put_nowait(found)

    async def look() -> None:
        while True:
            if await own.reach(peers):
                for arch in arches:
                    await own.look_for(records.key(arch, runtime), records.read, take)
            await asyncio.sleep(_AGAIN_SECONDS)

    task = asyncio.ensure_future(look())
    end = time.monotonic() + timeout
    newest: dict[str, int] = {}
    try:
        while (found := await _next(heard, task, end)) is not None:
            if newest.get(found.key, -1) < found.seq and (found.key in newest or len(newest) < MAX_FOUND):
                newest[found.key] = found.seq
                yield found
        if not own.known:
            named = ", ".join(f"{host}:{port}" for host, port in peers)
            raise DiscoveryError(f"no DHT node answers at {named}", hint="Is the network up?")
    finally:
        task.cancel()
        own.close()


async def _next(
    heard: "asyncio.Queue[Capability]", task: "asyncio.Task[None]", end: float
) -> Capability | None:
    """What was heard next; None when the time is over. Raises what the search raises."""
    get = asyncio.ensure_future(heard.get())
    try:
        wait = max(end - time.monotonic(), 0.0)
        done, _ = await asyncio.wait({get, task}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            task.result()
        return get.result() if get in done else None
    finally:
        get.cancel()
