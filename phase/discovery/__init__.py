"""Command line and mDNS -> records. For the seed and the command line; hints only, never trust."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from time import monotonic

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
        timeout: seconds for everything.
        gather: seconds to go on looking once one is known; the whole timeout when left out.
        last: addresses that were of no use before: of those that the local network tells of, they come
            after all others.

    Yields:
        At most `MAX_PROVIDERS`, no address twice, and no more than `MAX_PER_HOST` that the local network
        tells of one host: who answers for many must not be all there is.
    """
    end = monotonic() + timeout
    seen: set[str] = set()
    for url in urls[:MAX_PROVIDERS]:
        if url not in seen:
            seen.add(url)
            yield Provider(url, channel, arch, None, "cmdline", "")
    if not mdns or len(seen) >= MAX_PROVIDERS:
        return
    if seen and gather is not None:
        end = min(end, monotonic() + gather)
    # Only here: it brings zeroconf and asyncio, which a boot with phase.provider= need not wait for.
    from phase.discovery.mdns import Browser

    held_back: list[Provider] = []
    hosts: Counter[str] = Counter()
    with Browser(channel, arch) as browser:
        while len(seen) < MAX_PROVIDERS and (found := browser.next(end)) is not None:
            host = found.url.rpartition(":")[0]
            if found.url in seen or hosts[host] >= MAX_PER_HOST:
                continue
            if not hosts and gather is not None:
                end = min(end, monotonic() + gather)
            hosts[host] += 1
            if found.url in last:
                held_back.append(found)
                continue
            seen.add(found.url)
            yield found
    yield from held_back[: MAX_PROVIDERS - len(seen)]
