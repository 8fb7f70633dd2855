"""A machine of which nothing is seen but that it has an address: it answers ARP (RFC 826)."""

from ipaddress import IPv4Address

from lab.net.packet import ARP, arp_reply, parse


class Neighbour:
    """Has an address; plug it in with `segment.switch.add_service(neighbour, "name")`.

    Args:
        address: its own.
    """

    def __init__(self, address: IPv4Address) -> None:
        self.address = address
        self.mac = b"\x52\x54\x00\x4d" + address.packed[2:]

    def __call__(self, frame: bytes) -> list[bytes]:
        """Answer a question for its address, probes (RFC 5227) among them."""
        packet = parse(frame)
        if packet.kind != ARP or packet.operation != 1 or packet.destination != self.address:
            return []
        return [arp_reply(self.mac, self.address, frame)]
