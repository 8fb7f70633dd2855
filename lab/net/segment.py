"""An Ethernet segment: a switch, the addresses on it, and the server that gives them out."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from lab.net.dhcp import DhcpServer
from lab.net.switch import Port, Switch


class Named(Protocol):
    """A machine, as far as a segment knows it."""

    @property
    def name(self) -> str:
        """Its name on the switch."""


class Segment:
    """An Ethernet segment with a DHCP server on it.

    Attributes:
        network: its addresses.
        switch: what its machines are plugged into.
        dhcp: what gives them addresses.
    """

    def __init__(self, name: str, directory: Path, number: int) -> None:
        self.name = name
        self.network = IPv4Network(f"10.77.{number}.0/24")
        self.switch = Switch(name, directory)
        self.dhcp = DhcpServer(self.network)
        self.switch.add_service(self.dhcp)

    @property
    def frames(self) -> dict[str, int]:
        """Frames sent so far, by machine."""
        return self.switch.frames

    def port(self, vm: Named) -> Port:
        """The switch's end of a machine's cable: counters, and faults to set."""
        return self.switch.ports[vm.name]

    def partition(self, vm: Named) -> None:
        """Let nothing pass to or from a machine, silently."""
        self.port(vm).partitioned = True

    def heal(self) -> None:
        """End every partition and every loss."""
        for port in self.switch.ports.values():
            port.partitioned = False
            port.drop = None

    def capture(self) -> Path:
        """A pcap file of everything so far."""
        return self.switch.capture()
