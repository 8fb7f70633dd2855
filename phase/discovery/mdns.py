"""Multicast DNS, through zeroconf. Imported only when the local network is to be asked."""

import random
from collections import deque
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Self

from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from phase.discovery.interfaces import addresses, nearest
from phase.discovery.records import SERVICE, DiscoveryError, Provider, from_txt

#: Names that wait to be looked at, those among them that cost a question, and those that are remembered.
MAX_WAITING, MAX_LATER, MAX_KNOWN = 1024, 64, 4096
#: Milliseconds to ask for a name that came without its address.
_RESOLVE_MS = 700


class Browser:
    """One search of the local network; leaves no thread and no socket behind.

    Args:
        channel: release channel looked for.
        arch: architecture looked for.
        queue: where names come in; a provider that somebody else puts there is as good as found.

    Raises:
        DiscoveryError: there is no network to ask.
    """

    def __init__(self, channel: str, arch: str, queue: "SimpleQueue[str | Provider]") -> None:
        self._channel = channel
        self._arch = arch
        self._own = addresses()
        if not self._own:
            raise DiscoveryError("this machine has no network address", hint="Is the network up?")
        self._names = queue
        self._known: set[str] = set()
        self._later: deque[str] = deque()
        try:
            self._zeroconf = Zeroconf(
                interfaces=[address.ip for address in self._own], ip_version=IPVersion.V4Only
            )
        except OSError as error:
            raise DiscoveryError(f"multicast DNS cannot be used: {error}") from error
        self._browser = ServiceBrowser(self._zeroconf, SERVICE, handlers=[self._on_change])

    def next(self, end: float) -> Provider | None:
        """The next provider, or nothing once `time.monotonic()` passes `end`."""
        while (left := end - monotonic()) > 0:
            try:
                # Names whose address is known already go first; the others cost a question each.
                name = self._names.get(timeout=min(left, 0.05) if self._later else left)
                if isinstance(name, Provider):
                    return name
            except Empty:
                if not self._later:
                    return None
                name = self._later.popleft()
                info = self._zeroconf.get_service_info(
                    SERVICE, name, min(_RESOLVE_MS, max(int((end - monotonic()) * 1000), 1))
                )
            else:
                info = ServiceInfo(SERVICE, name)
                if not info.load_from_cache(self._zeroconf):
                    if len(self._later) < MAX_LATER:
                        self._later.append(name)
                    else:
                        # Any of them may be the honest one, also the last.
                        self._later[random.randrange(MAX_LATER)] = name  # noqa: S311
                    continue
            found = self._read(info) if info is not None else None
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """End the search."""
        self._browser.cancel()
        self._zeroconf.close()

    def _read(self, info: ServiceInfo) -> Provider | None:
        address = nearest(info.parsed_addresses(IPVersion.V4Only)[:8], self._own)
        if address is None:
            return None
        return from_txt(info.properties, address, info.port, channel=self._channel, arch=self._arch)

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        # zeroconf passes these by keyword.
        del zeroconf, service_type
        # A record for somebody else is told by its name in most cases; the TXT decides.
        # Once each: a flood of changes of one name hides no other.
        if state_change is ServiceStateChange.Removed or name in self._known:
            return
        if self._names.qsize() >= MAX_WAITING:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known.add(name)
        self._names.put(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
