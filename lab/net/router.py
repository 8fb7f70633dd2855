"""A router between segments (RFC 1812), in this process; with NAT and a firewall when asked.

Each of its interfaces is a service on a segment's switch and runs in that switch's thread.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

from lab.errors import MisuseError
from lab.net import datagram as ip
from lab.net.firewall import Firewall, Rule
from lab.net.nat import Nat, Translator
from lab.net.packet import ARP, EVERYBODY, IPV4, TCP, UDP, arp_reply, arp_request, ethernet, parse

#: Seconds that a neighbour's hardware address is believed, and that it is asked for at most.
_BELIEVED, _PATIENCE = 60.0, 3.0
_ASK_AGAIN = 1.0
#: Datagrams kept for a neighbour that is being asked for.
_QUEUE = 16


class Journey(NamedTuple):
    """A datagram on its way through.

    Attributes:
        datagram: as it goes on.
        original: as it came: what its sender is told about; None for what the router itself sends.
        came: where from.
    """

    datagram: bytes
    original: bytes | None
    came: "Interface"


@dataclass(slots=True)
class Asked:
    """A neighbour that is being asked for, since when, when last, and what waits for it."""

    since: float
    last: float
    queue: list[Journey] = field(default_factory=list)


class Interface:
    """A router's card on one segment.

    Attributes:
        name: the segment's.
        address: with the segment's network.
        mac: hardware address.
        mtu: bytes of the longest datagram it sends; may be set at any time.
        send: puts a frame on the segment.
    """

    def __init__(self, router: "Router", name: str, address: IPv4Interface, mac: bytes) -> None:
        self.name = name
        self.address = address
        self.mac = mac
        self.mtu = 1500
        self.send: Callable[[bytes], None] = lambda frame: None
        self.neighbours: dict[IPv4Address, tuple[bytes, float]] = {}
        self.asked: dict[IPv4Address, Asked] = {}
        self._router = router

    def __call__(self, frame: bytes) -> list[bytes]:
        """Take a frame of the segment; answers go by `send`, wherever they go."""
        if frame[:6] in (self.mac, EVERYBODY):
            self._router.receive(self, frame)
        return []


class Router:
    """Forwards between segments.

    Args:
        name: for messages, and its name on each switch.
        nat: how it hides the other segments from the one that was plugged in last; None: not at all.
        rules: of its firewall.
        routes: networks behind other routers, and those routers' addresses.
        clock: seconds.

    Attributes:
        interfaces: by segment.
        routes: networks behind other routers, and those routers' addresses; may be changed at any time.
        firewall: its rules may be set at any time.
        translator: the mappings of its NAT; None without.
        dropped: datagrams that went nowhere, by reason.
    """

    def __init__(
        self,
        name: str,
        *,
        nat: Nat | None = None,
        rules: tuple[Rule, ...] = (),
        routes: Mapping[IPv4Network, IPv4Address] | None = None,
        clock: ip.Clock = time.monotonic,
    ) -> None:
        self.name = name
        self.interfaces: dict[str, Interface] = {}
        self.dropped: Counter[str] = Counter()
        self.firewall = Firewall(rules, clock)
        self.translator: Translator | None = None
        self._nat = nat
        self.routes = dict(routes or {})
        self._clock = clock
        self._outside: Interface | None = None
        self._pieces = ip.Reassembly(clock)
        self._lock = threading.Lock()

    @property
    def made_of(self) -> tuple[object, ...]:
        """What decides where it sends what, as it stands now."""
        ports = [(port.name, port.address, port.mtu) for port in self.interfaces.values()]
        return self.name, self._nat, self.firewall.rules, sorted(self.routes.items()), ports

    def plug(self, segment: str, address: IPv4Interface, mac: bytes) -> Interface:
        """A new interface; a service for the segment's switch, once its `send` is set."""
        made = self.interfaces[segment] = Interface(self, segment, address, mac)
        if self._nat is not None:
            self._outside = made
            self.translator = Translator(self._nat, address.ip, self._clock)
        return made

    def address(self, segment: str) -> IPv4Address:
        """Its own address on a segment.

        Raises:
            MisuseError: it is not plugged in there.
        """
        if segment not in self.interfaces:
            raise MisuseError(f"{self.name} is not on the segment {segment}")
        return self.interfaces[segment].address.ip

    def restart(self) -> None:
        """Forget every mapping, flow and neighbour, as a box does that is switched off and on."""
        with self._lock:
            self.firewall = Firewall(self.firewall.rules, self._clock)
            self._pieces = ip.Reassembly(self._clock)
            if self.translator is not None:
                self.translator = Translator(self.translator.nat, self.translator.address, self._clock)
            for interface in self.interfaces.values():
                interface.neighbours.clear()
                interface.asked.clear()

    def receive(self, came: Interface, frame: bytes) -> None:
        """Take a frame that is for one of its interfaces, or for everybody."""
        with self._lock:
            if frame[12:14] == ARP.to_bytes(2, "big"):
                self._arp(came, frame)
            elif frame[12:14] == IPV4.to_bytes(2, "big"):
                found = ip.checked(frame)
                if found is None:
                    self.dropped["malformed"] += 1
                else:
                    self._take(came, found)

    def _arp(self, came: Interface, frame: bytes) -> None:
        packet = parse(frame)
        if packet.source is None or packet.source not in came.address.network:
            return
        known = packet.source in came.neighbours or packet.source in came.asked
        if known or packet.destination == came.address.ip:
            came.neighbours[packet.source] = (frame[22:28], self._clock() + _BELIEVED)
        if packet.operation == 1 and packet.destination == came.address.ip:
            came.send(arp_reply(came.mac, came.address.ip, frame))
        asked = came.asked.pop(packet.source, None) if known else None
        for journey in asked.queue if asked else ():
            self._put(came, packet.source, journey)

    def _take(self, came: Interface, datagram: bytes) -> None:
        source, destination = ip.addresses(datagram)
        if (
            source.is_unspecified
            or destination.is_multicast
            or destination == IPv4Address("255.255.255.255")
        ):
            return
        own = any(destination == each.address.ip for each in self.interfaces.values())
        if ip.is_fragment(datagram) and (own or self.translator or self.firewall.rules):
            whole = self._pieces.add(datagram)
            if whole is None:
                return
            datagram = whole
        journey = Journey(datagram, datagram, came)
        if self.translator is not None and destination == self.translator.address:
            translated = self._inward(self.translator, came, datagram)
            if translated is not None:
                self._forward(journey._replace(datagram=translated), translated=True)
                return
        if own:
            self._local(journey)
        else:
            self._forward(journey)

    def _inward(self, translator: Translator, came: Interface, datagram: bytes) -> bytes | None:
        flow, about = ip.flow_of(datagram), ip.quoted(datagram)
        if flow is not None and ip.icmp_type(datagram) != ip.ECHO:
            inner = translator.inward(flow) if came is self._outside else translator.hairpin(flow)
            return ip.redirected(datagram, inner) if inner else None
        answer = translator.inward(about.back()) if about and came is self._outside else None
        if answer is None:
            return None
        source, _ = ip.addresses(datagram)
        return ip.requoted(datagram, source, answer.destination, answer.back())

    def _local(self, journey: Journey) -> None:
        """Something for the router itself, which has nothing but ping to offer."""
        datagram = journey.datagram
        if ip.icmp_type(datagram) == ip.ECHO:
            self._send(Journey(ip.echo_reply(datagram), None, journey.came))
        elif journey.came is self._outside:
            self.dropped["unmapped"] += 1
        elif datagram[9] in (TCP, UDP):
            self._refuse(journey, ip.NO_PORT)

    def _forward(self, journey: Journey, *, translated: bool = False) -> None:
        datagram, came = journey.datagram, journey.came
        _, destination = ip.addresses(datagram)
        if datagram[8] <= 1:
            self._drop("ttl", journey, ip.EXCEEDED, 0)
            return
        found = self._route(destination)
        if found is None:
            self._drop("no route", journey, ip.UNREACHABLE, ip.NO_NETWORK)
            return
        goes, _ = found
        if destination == goes.address.network.broadcast_address:
            self.dropped["broadcast"] += 1
            return
        if came is self._outside and not translated:
            # The outside does not know the addresses inside.
            self.dropped["unmapped"] += 1
            return
        action = self.firewall.judge(datagram, came.name, goes.name)
        if action != "accept":
            self.dropped[action] += 1
            if action == "reject":
                self._refuse(journey, ip.PROHIBITED)
            return
        if len(datagram) > goes.mtu and ip.is_whole(datagram):
            self._drop("too long", journey, ip.UNREACHABLE, ip.TOO_LONG, goes.mtu)
            return
        if goes is self._outside and self.translator is not None and not translated:
            changed = self._outward(self.translator, datagram)
            if changed is None:
                self.dropped["untranslated"] += 1
                return
            datagram = changed
        self._send(journey._replace(datagram=ip.hop(datagram)))

    def _outward(self, translator: Translator, datagram: bytes) -> bytes | None:
        flow, about = ip.flow_of(datagram), ip.quoted(datagram)
        if flow is not None:
            seen = translator.outward(flow)
            return ip.redirected(datagram, seen) if seen else None
        asked = translator.outward(about.back()) if about else None
        if asked is None:
            return None
        _, destination = ip.addresses(datagram)
        return ip.requoted(datagram, translator.address, destination, asked.back())

    def _route(self, destination: IPv4Address) -> tuple[Interface, IPv4Address] | None:
        """The interface and the neighbour that lead there."""
        for interface in self.interfaces.values():
            if destination in interface.address.network:
                return interface, destination
        # A copy: a scenario may change them meanwhile.
        fitting = [
            (network.prefixlen, via) for network, via in list(self.routes.items()) if destination in network
        ]
        if not fitting:
            return None
        via = max(fitting)[1]
        for interface in self.interfaces.values():
            if via in interface.address.network:
                return interface, via
        return None

    def _send(self, journey: Journey) -> None:
        found = self._route(ip.addresses(journey.datagram)[1])
        if found is not None:
            self._put(*found, journey)

    def _put(self, goes: Interface, neighbour: IPv4Address, journey: Journey) -> None:
        now = self._clock()
        mac, until = goes.neighbours.get(neighbour, (b"", 0.0))
        if until > now:
            for piece in ip.fragments(journey.datagram, goes.mtu):
                goes.send(ethernet(mac, goes.mac, IPV4, piece))
            return
        asked = goes.asked.setdefault(neighbour, Asked(now, -1e9))
        if len(asked.queue) < _QUEUE:
            asked.queue.append(journey)
        if now - asked.since >= _PATIENCE:
            # Told when the next datagram comes: a sender that does not repeat does not wait.
            del goes.asked[neighbour]
            for each in asked.queue:
                self._drop("no neighbour", each, ip.UNREACHABLE, ip.NO_HOST)
        elif now - asked.last >= _ASK_AGAIN:
            asked.last = now
            goes.send(arp_request(goes.mac, goes.address.ip, neighbour))

    def _drop(self, why: str, journey: Journey, kind: int, code: int, rest: int = 0) -> None:
        self.dropped[why] += 1
        if journey.original is not None:
            said = ip.error(journey.original, journey.came.address.ip, kind, code, rest)
            if said is not None:
                self._send(Journey(said, None, journey.came))

    def _refuse(self, journey: Journey, code: int) -> None:
        original = journey.original
        if original is None:
            return
        if original[9] == TCP:
            said = ip.reset(original)
        else:
            said = ip.error(original, journey.came.address.ip, ip.UNREACHABLE, code)
        if said is not None:
            self._send(Journey(said, None, journey.came))
