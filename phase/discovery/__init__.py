"""Command line and mDNS -> records. For the seed and the command line; hints only, never trust."""

from collections.abc import Iterator, Sequence
from time import monotonic

from phase.discovery.records import SERVICE, DiscoveryError, Provider

MAX_PROVIDERS = 16

__all__ = ["MAX_PROVIDERS", "SERVICE", "DiscoveryError", "Provider", "discover"]


def discover(
    channel: str,
    arch: str,
    *,
    urls: Sequence[str] = (),
    mdns: bool = True,
    timeout: float,
    gather: float | None = None,
) -> Iterator[Provider]:
    """Look for providers; each is yielded as soon as it is known.

    Args:
        channel: release channel.
        arch: canonical architecture.
        urls: addresses somebody gave; yielded first, in their order.
        mdns: ask the local network too.
        timeout: seconds for everything.
        gather: seconds to go on looking once one is known; the whole timeout when left out.

    Yields:
        At most `MAX_PROVIDERS`, no address twice.
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

    with Browser(channel, arch) as browser:
        while (found := browser.next(end)) is not None:
            if found.url in seen:
                continue
            if not seen and gather is not None:
                end = min(end, monotonic() + gather)
            seen.add(found.url)
            yield found
            if len(seen) >= MAX_PROVIDERS:
                return
