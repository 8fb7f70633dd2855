"""Command line, mDNS and DHT -> records. For the seed and the command line; hints only, never trust."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from time import monotonic, time

from phase.discovery.records import SERVICE, DiscoveryError, Provider

MAX_PROVIDERS = 16
MAX_PER_HOST = 2

__all__ = ["MAX_PROVIDERS", "SERVICE", "DiscoveryError", "Provider", "discover"]


def discover(
    channel: str,
    arch: str,
    *,
    urls: Sequence[str] = (),
    mdns: bool = True,
    dht: Sequence[tuple[str, int]] = (),
    clock: Callable[[], float] = time,
    timeout: float,
    gather: float | None = None,
    last: Collection[str] = (),
) -> Iterator[Provider]:
    """Look for providers; each is yielded as soon as it is known.

    Args:
        channel: release channel.
        arch: canonical architecture.
        urls: addresses somebody gave; yielded first, in their order.
        mdns: ask the local network too.
        dht: nodes to ask the DHT through: hosts and ports.
        clock: seconds since the epoch, to tell what the DHT says from what it said long ago.
        timeout: seconds for everything.
        gather: seconds to go on looking once one is known; the whole timeout when left out.
        last: addresses that were of no use before: of those that a network tells of, they come after all
            others.

    Yields:
        At most `MAX_PROVIDERS`, no address twice, and no more than `MAX_PER_HOST` that a network tells of
        one host: who answers for many must not be all there is.

    Raises:
        DiscoveryError: there is no network to ask.
    """
    end = monotonic() + timeout
    seen: set[str] = set()
    for url in urls[:MAX_PROVIDERS]:
        if url not in seen:
            seen.add(url)
            yield Provider(url, channel, arch, None, "cmdline", "")
    if not (mdns or dht) or len(seen) >= MAX_PROVIDERS:
        return
    if seen and gather is not None:
        end = min(end, monotonic() + gather)
    held_back: list[Provider] = []
    hosts: Counter[str] = Counter()
    nearby, far = False, 0
    with ExitStack() as stack:
        told = _ask(stack, channel, arch, mdns=mdns, dht=dht, clock=clock)
        while len(seen) < MAX_PROVIDERS and (found := told(end)) is not None:
            host = found.url.rpartition(":")[0]
            if found.url in seen or hosts[host] >= MAX_PER_HOST:
                continue
            if found.source == "dht" and mdns:
                # One node there can tell of any number of hosts; those nearby are not lost among them.
                if far >= MAX_PROVIDERS // 2:
                    continue
                far += 1
            elif not nearby and gather is not None:
                nearby = True
                end = min(end, monotonic() + gather)
            hosts[host] += 1
            if found.url in last:
                held_back.append(found)
                continue
            seen.add(found.url)
            yield found
    yield from held_back[: MAX_PROVIDERS - len(seen)]


def _ask(
    stack: ExitStack,
    channel: str,
    arch: str,
    *,
    mdns: bool,
    dht: Sequence[tuple[str, int]],
    clock: Callable[[], float],
) -> Callable[[float], Provider | None]:
    """Begin to ask; what comes back gives the next provider, or none once `time.monotonic()` is past."""
    queue: SimpleQueue[str | Provider] = SimpleQueue()
    # Imported only here: zeroconf and asyncio are nothing that a boot with phase.provider= need
    # wait for.
    if dht:
        from phase.discovery.dht import Search

        stack.enter_context(Search(channel, arch, dht, queue, clock=clock))
    if mdns:
        from phase.discovery.mdns import Browser

        return stack.enter_context(Browser(channel, arch, queue)).next

    def following(end: float) -> Provider | None:
        try:
            found = queue.get(timeout=max(end - monotonic(), 0))
        except Empty:
            return None
        return found if isinstance(found, Provider) else None

    return following
