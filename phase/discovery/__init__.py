"""Finds providers by command line, mDNS and DHT, for the seed and the command line. Results are hints."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from time import monotonic, time
from typing import TYPE_CHECKING

from phase.discovery.records import SERVICE, DiscoveryError, Heard, Provider, host_of

if TYPE_CHECKING:
    from phase.discovery.dht import Search
    from phase.discovery.mdns import Browser

MAX_PROVIDERS = 16
MAX_PER_HOST = 2
#: Limit for further addresses of providers that were yielded already.
_MAX_HELD = 64

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
    besides: Collection[str] = (),
) -> Iterator[Provider]:
    """Look for providers; each is yielded as soon as it is known.

    Args:
        channel: release channel.
        arch: canonical architecture.
        urls: addresses from a person; yielded first, in their order.
        mdns: ask the local network too.
        dht: nodes to ask the DHT through: hosts and ports.
        clock: seconds since the epoch, to recognise old announcements in the DHT.
        timeout: seconds for everything.
        gather: seconds to go on looking once one is known; the whole timeout when left out.
        last: addresses that have failed before: if a network tells of them, they come after all others.
        besides: hosts whose answers do not count, as `records.host_of` has them: of the one who asks.

    Yields:
        At most `MAX_PROVIDERS`, each address once. A network can name at most `MAX_PER_HOST` providers of
        one host, so that one host cannot crowd out all others. The nearest address of each provider comes
        first; the other addresses of all of them follow.

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
    with ExitStack() as stack:
        told = _ask(stack, channel, arch, mdns=mdns, dht=dht, clock=clock)
        sifter = _Sifter(seen, last, mdns=mdns, gather=gather, besides=besides)
        yield from sifter.sift(told, end)
        if not seen and told.problem:
            raise DiscoveryError(told.problem, hint="Is the network up?")


class _Sifter:
    """Chooses which of the providers found to yield, and in which order.

    Args:
        seen: addresses that were yielded; grows.
        last: addresses to yield after all others.
        mdns: whether the local network is asked.
        gather: seconds to go on once one is known.
        besides: hosts that are passed over.
    """

    def __init__(
        self,
        seen: set[str],
        last: Collection[str],
        *,
        mdns: bool,
        gather: float | None,
        besides: Collection[str] = (),
    ) -> None:
        self._seen = seen
        self._last = last
        self._mdns = mdns
        self._gather = gather
        self._besides = besides
        self._hosts: Counter[str] = Counter()
        self._far = 0
        #: Further addresses of providers already yielded, then addresses that have failed before.
        self._others: list[Provider] = []
        self._useless: list[Provider] = []

    def sift(self, told: "_Told", end: float) -> Iterator[Provider]:
        """The chosen providers of those found until `time.monotonic()` passes `end`."""
        nearby = False
        while len(self._seen) < MAX_PROVIDERS and (heard := told.next(end)) is not None:
            found = heard.provider
            if not self._counts(found):
                continue
            if found.source == "mdns" and not nearby and self._gather is not None:
                nearby = True
                end = min(end, monotonic() + self._gather)
            if found.url in self._last:
                self._useless.append(found)
            elif heard.rank:
                self._others.append(found)
            else:
                self._seen.add(found.url)
                yield found
        for found in (*self._others[:_MAX_HELD], *self._useless[:_MAX_HELD]):
            if len(self._seen) < MAX_PROVIDERS and found.url not in self._seen:
                self._seen.add(found.url)
                yield found

    def _counts(self, found: Provider) -> bool:
        host = found.url.rpartition(":")[0]
        if found.url in self._seen or self._hosts[host] >= MAX_PER_HOST:
            return False
        if host_of(found.url) in self._besides:
            return False
        if found.source == "dht" and self._mdns:
            # One DHT node can name any number of hosts; they must not crowd out nearby ones.
            if self._far >= MAX_PROVIDERS // 2:
                return False
            self._far += 1
        self._hosts[host] += 1
        return True


class _Told:
    """The answers of all searches.

    Args:
        queue: receives the answers.
        asked: the searches, each in one network.
    """

    def __init__(self, queue: "SimpleQueue[Heard]", asked: "Sequence[Browser | Search]") -> None:
        self._queue = queue
        self._asked = asked

    @property
    def problem(self) -> str:
        """Why a network could not be asked; empty if all could."""
        return "; ".join(each.problem for each in self._asked if each.problem)

    def next(self, end: float) -> Heard | None:
        """The next answer; None once `time.monotonic()` passes `end`."""
        try:
            return self._queue.get(timeout=max(end - monotonic(), 0))
        except Empty:
            return None


def _ask(
    stack: ExitStack,
    channel: str,
    arch: str,
    *,
    mdns: bool,
    dht: Sequence[tuple[str, int]],
    clock: Callable[[], float],
) -> _Told:
    """Begin the searches."""
    queue: SimpleQueue[Heard] = SimpleQueue()
    asked: list[Browser | Search] = []
    # Imported only here: asyncio and sockets are nothing that a boot with phase.provider= need wait for.
    if dht:
        from phase.discovery import dht as far

        asked.append(stack.enter_context(far.Search(channel, arch, dht, queue, clock=clock)))
    if mdns:
        from phase.discovery import mdns as local

        asked.append(stack.enter_context(local.Browser(channel, arch, queue)))
    return _Told(queue, asked)
