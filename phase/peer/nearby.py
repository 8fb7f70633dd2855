"""Nodes on the local networks, by multicast DNS: `_phase-node._tcp.local.`.

Nothing of it is signed or ends: it says which key to try at which address, and the connection proves it.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

import msgspec

from phase.discovery.interfaces import Ip
from phase.discovery.mdns.browser import MAX_WAITING, Browser, Complete, Reader
from phase.discovery.mdns.claims import MAX_LABEL
from phase.discovery.mdns.responder import Responder
from phase.discovery.mdns.wire import NODE_SERVICE_NAME
from phase.discovery.records import MAX_TXT, DiscoveryError, Heard
from phase.peer.address import join_host
from phase.peer.publish import Steady
from phase.peer.records import MAX_RUNTIMES, Capability
from phase.provider.advertise import WATCH_SECONDS, chooser

#: Limits for the nodes that one search finds: in all, and from one sender.
MAX_FOUND, MAX_OF_TELLER = 64, 16
#: Seconds between two looks at what was heard.
_LOOK_SECONDS = 0.1
_KEY = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9._-]{1,32}")
_NUMBER = re.compile("[0-9]{1,8}")


class NodeOffer(NamedTuple):
    """What a node can do, as one instance of the service."""

    key: str
    can: Capability

    def label(self, suffix: str, *, short: bool) -> bytes:
        """See `phase.discovery.mdns.claims.Offered`."""
        return f"phase-node-{suffix}".encode()[:MAX_LABEL]

    def pairs(self, identity: str) -> list[str]:
        """See `phase.discovery.mdns.claims.Offered`."""
        can = self.can
        return [
            "txtvers=1",
            f"key={self.key}",
            f"arch={can.arch}",
            f"runtimes={','.join(can.runtimes)}",
            f"processors={can.processors}",
            f"memory={can.memory}",
            f"slots={can.slots}",
        ]


async def advertise(can: Callable[[], Capability], *, key: str, hosts: Sequence[str], port: int) -> None:
    """Answer for this node on every interface that leads to it, until cancelled; then say goodbye.

    Args:
        can: what it can do now; asked every second.
        key: the node's, 64 hex digits.
        hosts: numeric addresses that are listened on; `0.0.0.0` for all of IPv4, `::` for all of IPv6.
        port: UDP.
    """
    steady = Steady(can)
    responder = Responder(port=port, identity=key[:8], choose=chooser(hosts), service=NODE_SERVICE_NAME)

    def look() -> None:
        responder.offer([NodeOffer(key, msgspec.structs.replace(steady(), hosts=()))])

    await responder.run(look, WATCH_SECONDS)


def from_txt(txt: Mapping[bytes, bytes | None], address: str, port: int, *, size: int) -> Capability | None:
    """Read an answer.

    Args:
        txt: the pairs of the TXT record, from anyone.
        address: an IP address of the host.
        port: of the SRV record.
        size: bytes of the TXT record.

    Returns:
        What the node says that it can do; None if it is malformed.
    """
    if len(txt) > 16 or size > MAX_TXT or not 0 < port < 65_536 or txt.get(b"txtvers") != b"1":
        return None
    try:
        said = {name: (value or b"").decode("ascii") for name, value in txt.items()}
    except UnicodeDecodeError:
        return None
    key, arch = said.get(b"key", ""), said.get(b"arch", "")
    runtimes = tuple(said.get(b"runtimes", "").split(","))
    numbers = [said.get(name, "") for name in (b"processors", b"memory", b"slots")]
    good = _KEY.fullmatch(key) and all(map(_NAME.fullmatch, (arch, *runtimes)))
    if not good or len(runtimes) > MAX_RUNTIMES or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    processors, memory, slots = map(int, numbers)
    return Capability(
        key=key,
        arch=arch,
        runtimes=runtimes,
        hosts=(join_host(address, port),),
        processors=processors,
        memory=memory,
        slots=slots,
    )


class NodeReader(Reader):
    """Reads answers of nodes.

    Args:
        found: receives what they say, each address of a node once as long as it says the same.
    """

    service = NODE_SERVICE_NAME

    def __init__(self, found: "SimpleQueue[Capability]") -> None:
        unused: SimpleQueue[Heard] = SimpleQueue()
        super().__init__("", "", unused)
        self._found = found
        self._told: dict[Capability, None] = {}
        self._keys: dict[Ip, set[str]] = {}

    def take(self, complete: Complete) -> None:
        """See `Reader`."""
        # A peer's address has no zone: it would mean nothing elsewhere.
        if complete.zone:
            return
        said = from_txt(complete.txt, complete.address, complete.port, size=complete.size)
        if said is None or said in self._told or self._found.qsize() >= MAX_WAITING:
            return
        # A sender that tells of many nodes must not crowd out the others.
        keys = self._keys.setdefault(complete.teller, set()) if len(self._keys) < MAX_WAITING else set()
        if said.key not in keys and len(keys) >= MAX_OF_TELLER:
            return
        keys.add(said.key)
        if len(self._told) >= MAX_WAITING:
            del self._told[next(iter(self._told))]
        self._told[said] = None
        self._found.put(said)


class NodeBrowser(Browser):
    """One search of the local networks for nodes; see `Browser`.

    Args:
        found: receives what they say.
    """

    def __init__(self, found: "SimpleQueue[Capability]") -> None:
        self._begin(NodeReader(found))


async def find(arches: Sequence[str], runtime: str, *, timeout: float) -> AsyncIterator[Capability]:
    """Search the local networks for nodes; each is yielded once it is known, with every address so far.

    Args:
        arches: wanted architectures.
        runtime: wanted runtime.
        timeout: seconds.

    Raises:
        DiscoveryError: there is no network to ask.
    """
    heard: SimpleQueue[Capability] = SimpleQueue()
    end = time.monotonic() + timeout
    hosts: dict[str, tuple[str, ...]] = {}
    with NodeBrowser(heard) as browser:
        while time.monotonic() < end:
            try:
                said = heard.get_nowait()
            except Empty:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            known = hosts.get(said.key, ())
            if said.arch not in arches or runtime not in said.runtimes:
                continue
            if known or len(hosts) < MAX_FOUND:
                hosts[said.key] = tuple(dict.fromkeys((*known, *said.hosts)))[-4:]
                yield msgspec.structs.replace(said, hosts=hosts[said.key])
        if not hosts and browser.problem:
            raise DiscoveryError(browser.problem, hint="Is the network up?")
