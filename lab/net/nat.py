"""Network address translation, in the kinds that RFC 4787 tells apart and RFC 3489 gave their names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import cycle
from typing import Literal

from lab.net.datagram import TIMEOUTS, Clock, Flow
from lab.net.packet import ICMP

#: On which part of the other end something depends.
Dependence = Literal["nothing", "address", "port"]
#: Other ends remembered of each mapping; the oldest is forgotten first.
_PEERS = 1024


@dataclass(frozen=True, slots=True)
class Nat:
    """How a box translates.

    Attributes:
        mapping: a machine's port is seen from outside as one and the same port, or as another for each
            `address` or each `port` (of an address) that it sends to.
        filtering: who may send to a mapped port: everybody, or the addresses, or the ports of addresses,
            that were sent to.
        timeouts: protocol to seconds after which a mapping that sends nothing is forgotten.
        ports: what mappings get, in this order; for each protocol, no more mappings than ports.
    """

    mapping: Dependence = "nothing"
    filtering: Dependence = "nothing"
    timeouts: Mapping[int, float] = field(default_factory=lambda: dict(TIMEOUTS))
    ports: range = range(40_000, 44_000)


FULL_CONE = Nat()
RESTRICTED_CONE = Nat(filtering="address")
PORT_RESTRICTED_CONE = Nat(filtering="port")
SYMMETRIC = Nat(mapping="port", filtering="port")


@dataclass(slots=True)
class Mapped:
    """A port of the box that stands for a port of a machine behind it.

    Attributes:
        key: what it was made for.
        protocol: such as `UDP`.
        address: of the machine.
        port: of the machine.
        outside: port of the box.
        until: when it is forgotten.
        peers: parts of the other ends that it has sent to, the oldest first.
    """

    key: tuple[object, ...]
    protocol: int
    address: IPv4Address
    port: int
    outside: int
    until: float
    peers: dict[tuple[object, ...], None] = field(default_factory=dict)


class Translator:
    """The mappings of one box.

    Args:
        nat: their kind.
        address: the box's own, outside.
        clock: seconds.
    """

    def __init__(self, nat: Nat, address: IPv4Address, clock: Clock) -> None:
        self.nat = nat
        self.address = address
        self._clock = clock
        self._by_key: dict[tuple[object, ...], Mapped] = {}
        self._by_port: dict[tuple[int, int], Mapped] = {}
        self._ports = {protocol: cycle(nat.ports) for protocol in nat.timeouts}

    def outward(self, flow: Flow) -> Flow | None:
        """A flow from inside as outside sees it; None when every port is taken."""
        now = self._clock()
        key = (flow.protocol, flow.source, flow.source_port, *self._part(self.nat.mapping, flow))
        mapped = self._by_key.get(key)
        if mapped is not None and mapped.until <= now:
            self._forget(mapped)
            mapped = None
        if mapped is None:
            mapped = self._open(key, flow, now)
        if mapped is None:
            return None
        mapped.until = now + self.nat.timeouts[flow.protocol]
        if len(mapped.peers) >= _PEERS:
            del mapped.peers[next(iter(mapped.peers))]
        mapped.peers[self._part(self.nat.filtering, flow)] = None
        return _with_source(flow, self.address, mapped.outside)

    def inward(self, flow: Flow) -> Flow | None:
        """A flow from outside as the machine inside sees it; None when no machine inside has it."""
        mapped = self._by_port.get((flow.protocol, flow.destination_port))
        if mapped is None or mapped.until <= self._clock() or flow.destination != self.address:
            return None
        if self._part(self.nat.filtering, flow.back()) not in mapped.peers:
            return None
        return _with_source(flow.back(), mapped.address, mapped.port).back()

    def hairpin(self, flow: Flow) -> Flow | None:
        """A flow from inside to a mapped port, as that machine sees it (RFC 4787, REQ-9)."""
        if (flow.protocol, flow.destination_port) not in self._by_port:
            return None
        seen = self.outward(flow)
        return self.inward(seen) if seen else None

    @property
    def mappings(self) -> list[Mapped]:
        """Those that hold, the oldest first."""
        now = self._clock()
        # A copy first: the switches' threads make more meanwhile.
        return [mapped for mapped in list(self._by_key.values()) if mapped.until > now]

    def _open(self, key: tuple[object, ...], flow: Flow, now: float) -> Mapped | None:
        for _ in self.nat.ports:
            port = next(self._ports[flow.protocol])
            taken = self._by_port.get((flow.protocol, port))
            if taken is not None and taken.until > now:
                continue
            if taken is not None:
                self._forget(taken)
            mapped = Mapped(key, flow.protocol, flow.source, flow.source_port, port, now)
            self._by_key[key] = self._by_port[flow.protocol, port] = mapped
            return mapped
        return None

    def _forget(self, mapped: Mapped) -> None:
        del self._by_key[mapped.key]
        del self._by_port[mapped.protocol, mapped.outside]

    @staticmethod
    def _part(dependence: Dependence, flow: Flow) -> tuple[object, ...]:
        if dependence == "nothing":
            return ()
        # An echo has no port at its other end.
        port = 0 if flow.protocol == ICMP else flow.destination_port
        return (flow.destination,) if dependence == "address" else (flow.destination, port)


def _with_source(flow: Flow, address: IPv4Address, port: int) -> Flow:
    changed = flow._replace(source=address, source_port=port)
    return changed._replace(destination_port=port) if flow.protocol == ICMP else changed
