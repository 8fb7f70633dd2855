"""An IPv6 router that lives on a segment: it advertises a prefix (RFC 4861) and name servers (RFC 8106).

It forwards nothing. Machines take an address from the prefix by themselves (RFC 4862).
"""

import struct
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from lab.net.packet import UDP, checksum, ethernet

IPV6 = 0x86DD
_ICMP6 = 58
_SOLICITATION, _ADVERTISEMENT, _NEIGHBOUR_WANTED, _NEIGHBOUR = 133, 134, 135, 136
_EVERYBODY, _EVERYBODYS_MAC = IPv6Address("ff02::1"), b"\x33\x33\0\0\0\1"
_DAY = 86_400


class Advertiser:
    """Answers router solicitations; plug it in with `segment.switch.add_service(advertiser, "router6")`.

    Args:
        prefix: 64 bits long, of the segment.

    Attributes:
        address: its own, in the prefix; link-local is `fe80::1`.
        lifetime: seconds for which it is a default router; 0: it is not one.
        mtu: of the link; left out when 0.
        servers: addresses of name servers.
        domains: that a name without dots is looked for in.
        managed: whether addresses are to be had by DHCPv6 only: then the prefix is not for the machines.
        answer: what answers a question on port 53 of its address, such as `DnsServer.answer`.
    """

    def __init__(self, prefix: IPv6Network = IPv6Network("fd4c:4142::/64")) -> None:  # noqa: B008
        self.prefix = prefix
        self.address = prefix[1]
        self.local = IPv6Address("fe80::1")
        self.mac = b"\x52\x54\x00\x4c\x06\x01"
        self.lifetime = 1800
        self.mtu = 0
        self.servers: tuple[IPv6Address, ...] = ()
        self.domains: tuple[str, ...] = ()
        self.managed = False
        self.answer: Callable[[bytes], bytes | None] = lambda message: None

    def __call__(self, frame: bytes) -> list[bytes]:
        """Answer a frame of the segment."""
        if len(frame) < 14 + 40 + 8 or frame[12:14] != IPV6.to_bytes(2, "big"):
            return []
        source, destination = IPv6Address(frame[22:38]), IPv6Address(frame[38:54])
        length = int.from_bytes(frame[18:20], "big")
        body = frame[54 : 54 + length]
        if frame[20] == _ICMP6 and body[0] == _SOLICITATION:
            return [self.advertisement()]
        if frame[20] == _ICMP6 and body[0] == _NEIGHBOUR_WANTED and len(body) >= 24:
            return self._neighbour(frame[6:12], source, IPv6Address(body[8:24]))
        if frame[20] == UDP and destination in (self.address, self.local) and body[2:4] == b"\0\x35":
            said = self.answer(body[8:])
            if said is not None:
                udp = struct.pack("!HHHH", 53, int.from_bytes(body[:2], "big"), 8 + len(said), 0) + said
                return [self._frame(frame[6:12], destination, source, UDP, udp, 6)]
        return []

    def advertisement(self) -> bytes:
        """The frame that tells everybody."""
        flags = 0x80 if self.managed else 0
        message = struct.pack("!BBHBBHII", _ADVERTISEMENT, 0, 0, 64, flags, self.lifetime, 0, 0)
        message += b"\x01\x01" + self.mac
        on_link = 0x80 | (0 if self.managed else 0x40)
        prefix = self.prefix.network_address.packed
        message += struct.pack("!BBBBIII", 3, 4, self.prefix.prefixlen, on_link, _DAY, _DAY, 0) + prefix
        if self.mtu:
            message += struct.pack("!BBHI", 5, 1, 0, self.mtu)
        if self.servers:
            addresses = b"".join(server.packed for server in self.servers)
            message += struct.pack("!BBHI", 25, 1 + len(addresses) // 8, 0, _DAY) + addresses
        if self.domains:
            names = b"".join(_name(domain) for domain in self.domains)
            names += bytes(-len(names) % 8)
            message += struct.pack("!BBHI", 31, 1 + len(names) // 8, 0, _DAY) + names
        return self._frame(_EVERYBODYS_MAC, self.local, _EVERYBODY, _ICMP6, message, 2)

    def _neighbour(self, mac: bytes, source: IPv6Address, wanted: IPv6Address) -> list[bytes]:
        if wanted not in (self.address, self.local):
            return []
        # An answer to a machine that has no address yet goes to everybody.
        to, to_mac = (_EVERYBODY, _EVERYBODYS_MAC) if source.is_unspecified else (source, mac)
        flags = 0xA0000000 if source.is_unspecified else 0xE0000000
        message = struct.pack("!BBHI", _NEIGHBOUR, 0, 0, flags) + wanted.packed + b"\x02\x01" + self.mac
        return [self._frame(to_mac, wanted, to, _ICMP6, message, 2)]

    def _frame(
        self, mac: bytes, source: IPv6Address, to: IPv6Address, protocol: int, body: bytes, sum_at: int
    ) -> bytes:
        # RFC 8200, 8.1: the checksum covers the addresses, and is never zero in UDP.
        pseudo = source.packed + to.packed + struct.pack("!II", len(body), protocol)
        total = checksum(pseudo + body) or 0xFFFF
        body = body[:sum_at] + total.to_bytes(2, "big") + body[sum_at + 2 :]
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
        return ethernet(mac, self.mac, IPV6, head + source.packed + to.packed + body)


def _name(domain: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in domain.split(".")) + b"\0"
