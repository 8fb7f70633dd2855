"""An Ethernet segment: a switch, the addresses on it, and the server that gives them out."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Protocol

from lab.errors import MisuseError, ProductError
from lab.net.capture import Captured, read
from lab.net.dhcp import DhcpServer
from lab.net.hostport import HostPort
from lab.net.packet import Packet, parse
from lab.net.router import Router
from lab.net.switch import Link, Switch

#: Packets that a failure names.
_NAMED = 5


class Named(Protocol):
    """A machine, as far as a segment knows it."""

    @property
    def name(self) -> str:
        """Its name on the switch."""


class Plug(Protocol):
    """A network card, as far as a segment knows it."""

    @property
    def machine_socket(self) -> Path:
        """The machine's end of the cable."""


class Cards(Protocol):
    """What a machine is made of, as far as a segment knows it."""

    @property
    def cards(self) -> Sequence[Plug]:
        """Its network cards, in order."""


class Wired(Named, Protocol):
    """A machine whose plug can be pulled."""

    @property
    def spec(self) -> Cards:
        """What it is made of."""

    def qmp(self, name: str, **arguments: object) -> object:
        """Give its QEMU a command."""


class Segment:
    """An Ethernet segment with a DHCP server on it.

    Attributes:
        network: its addresses.
        switch: what its machines are plugged into.
        dhcp: what gives them addresses.
    """

    def __init__(self, name: str, directory: Path, number: int, *, seed: int = 0) -> None:
        self.name = name
        self.network = IPv4Network(f"10.77.{number}.0/24")
        self.switch = Switch(name, directory, seed=seed)
        self.dhcp = DhcpServer(self.network)
        self.switch.add_service(self.dhcp, "dhcp")

    @property
    def frames(self) -> dict[str, int]:
        """Frames sent so far, by machine."""
        return self.switch.frames

    def link(self, of: Named | str) -> Link:
        """The switch's end of a cable: counters, and faults to set.

        Args:
            of: a machine, or the name of a node such as `dhcp`.

        Raises:
            MisuseError: it is not on this segment.
        """
        name = of if isinstance(of, str) else of.name
        found = self.switch.ports.get(name) or self.switch.nodes.get(name)
        if found is None:
            raise MisuseError(f"{name} is not on the segment {self.name}")
        return found

    port = link

    def join(self, name: str, router: Router, mac: bytes) -> IPv4Address:
        """Plug a router in.

        Args:
            name: its name here.
            router: which forwards from now on.
            mac: hardware address of its card.

        Returns:
            Its address here.
        """
        address = self.dhcp.reserve()
        card = router.plug(self.name, IPv4Interface((address, self.network.prefixlen)), mac)
        card.send = self.switch.add_service(card, name).send
        return address

    def host_port(self, name: str, mac: bytes, *, factor: float = 1.0) -> HostPort:
        """Plug in a card for programs of the host; see `lab.topology.Lab.host_port`."""
        address = IPv4Interface((self.dhcp.reserve(), self.network.prefixlen))
        router = self.dhcp.options.get(3)
        port = HostPort(name, address, mac, IPv4Address(router) if router else None, factor=factor)
        try:
            port.send = self.switch.add_service(port, name).send
            port.start()
        except BaseException:
            port.close()
            raise
        return port

    def partition(self, vm: Named) -> None:
        """Let nothing pass to or from a machine, silently."""
        self.link(vm).partitioned = True

    def heal(self) -> None:
        """End every fault of every cable, carrier loss excepted."""
        for link in (*self.switch.ports.values(), *self.switch.nodes.values()):
            link.heal()

    def carrier(self, vm: Wired, *, up: bool) -> None:
        """Pull a machine's plug, which it notices, or put it back; starting it anew puts it back too."""
        end = self.switch.ports[vm.name].machine_socket
        number = next(number for number, card in enumerate(vm.spec.cards) if card.machine_socket == end)
        # The command for people: set_link's own argument has the name of qmp's first.
        line = f"set_link net{number} {'on' if up else 'off'}"
        vm.qmp("human-monitor-command", **{"command-line": line})

    def traffic(self) -> list[Captured]:
        """Every frame so far: each once as it came from its sender, and once where it arrived.

        Raises:
            MisuseError: the capture was full before the end, so nothing can be said of what is not in it.
        """
        path = self.switch.capture()
        if cut := self.switch.cut:
            raise MisuseError(f"{cut} frames on {self.name} came after the capture was full")
        return list(read(path))

    def seen(self, wanted: Callable[[Packet], bool]) -> list[Packet]:
        """The packets that a sender put on the segment and that are wanted, oldest first."""
        packets = (parse(frame.frame) for frame in self.traffic() if frame.direction == "inbound")
        return [packet for packet in packets if wanted(packet)]

    def expect_none(self, unwanted: Callable[[Packet], bool], what: str) -> None:
        """Fail when a sender put such a packet on the segment.

        Args:
            unwanted: true for a packet that must not be there.
            what: what is wrong with it, for the message: "12 packets {what}".

        Raises:
            ProductError: there are some; names the first ones.
            MisuseError: the capture was full before the end.
        """
        found = self.seen(unwanted)
        if found:
            first = "; ".join(str(packet) for packet in found[:_NAMED])
            raise ProductError(f"{len(found)} packets {what}: {first}")

    def expect_nothing_left(self) -> None:
        """Fail when a packet left the segment, or would have with a router there; see `strays`.

        Raises:
            ProductError: there are some; names the first ones.
        """
        self.expect_none(self._stray, f"left the segment {self.name}")

    def strays(self) -> list[Packet]:
        """IPv4 packets and ARP questions for somebody who has no address of this segment, nor a group's."""
        return self.seen(self._stray)

    def _stray(self, packet: Packet) -> bool:
        address = packet.destination
        return address is not None and not (
            address in self.network or address.is_multicast or address == IPv4Address("255.255.255.255")
        )

    def capture(self) -> Path:
        """A pcapng file of everything so far."""
        return self.switch.capture()
