"""Router advertisements (RFC 4861): the name servers in them (RFC 8106), which the kernel does not keep."""

import select
import socket
import struct
import time
from ipaddress import IPv6Address
from typing import NamedTuple

_SOLICITATION, _ADVERTISEMENT = 133, 134
_RDNSS, _DNSSL = 25, 31
_ROUTERS = "ff02::2"
#: A router answers within half a second (MAX_RA_DELAY_TIME), and no more often than every three seconds.
_PATIENCE = 4.0
_MOST_SERVERS, _MOST_DOMAINS = 3, 6
#: Packets that are looked at: anybody on the link can send any number.
_MOST_PACKETS = 256


class Told(NamedTuple):
    """What routers on one link say of names: addresses of servers, domains to search."""

    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def lines(self, interface: str) -> list[str]:
        """As resolv.conf(5) has them; an address of the link itself needs the interface's name."""
        zoned = [f"{one}%{interface}" if IPv6Address(one).is_link_local else one for one in self.servers]
        return [f"nameserver {one}" for one in zoned] + [f"search {one}" for one in self.domains]


def ask(interfaces: list[str], *, seconds: float = _PATIENCE) -> dict[str, Told]:
    """Ask the routers of each interface, until one on each has told of name servers.

    Args:
        interfaces: names.
        seconds: for everything.

    Returns:
        By interface; those where no server was named are left out.
    """
    found: dict[str, Told] = {}
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as link:
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        asked = {}
        for name in interfaces:
            try:
                number = socket.if_nametoindex(name)
                link.sendto(struct.pack("!BBHI", _SOLICITATION, 0, 0, 0), (_ROUTERS, 0, 0, number))
            except OSError:
                continue  # a card without IPv6, or one that is gone
            asked[number] = name
        end = time.monotonic() + seconds
        for _ in range(_MOST_PACKETS):
            left = end - time.monotonic()
            if left <= 0 or len(found) == len(asked) or not select.select([link], [], [], left)[0]:
                break
            data, ancillary, _, sender = link.recvmsg(1500, socket.CMSG_SPACE(4))
            # Whatever came through a router has fewer than 255 hops left (RFC 4861, 6.1.2).
            near = any(struct.unpack("i", value)[0] == 255 for _, _, value in ancillary if len(value) == 4)
            name = asked.get(sender[3], "")
            if near and name and IPv6Address(sender[0].partition("%")[0]).is_link_local:
                told = parse(data)
                if told.servers:
                    found[name] = told
    return found


def parse(data: bytes) -> Told:
    """Read an advertisement; what is torn, or for no time, is left out.

    Args:
        data: the ICMPv6 message.
    """
    servers: list[str] = []
    domains: list[str] = []
    if len(data) < 16 or data[0] != _ADVERTISEMENT:
        return Told()
    at = 16
    while at + 8 <= len(data) and (length := data[at + 1] * 8) and at + length <= len(data):
        lifetime = int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 8 : at + length]
        if data[at] == _RDNSS and lifetime:
            servers += [str(IPv6Address(body[i : i + 16])) for i in range(0, len(body) - 15, 16)]
        elif data[at] == _DNSSL and lifetime:
            domains += _domains(body)
        at += length
    return Told(tuple(dict.fromkeys(servers))[:_MOST_SERVERS], tuple(dict.fromkeys(domains))[:_MOST_DOMAINS])


def _domains(body: bytes) -> list[str]:
    """Names as DNS writes them, one behind the other, zeros at the end."""
    found, labels, at = [], [], 0
    while at < len(body):
        length = body[at]
        label = body[at + 1 : at + 1 + length]
        if length > 63 or len(label) != length or not all(chr(c).isalnum() or c in b"-_" for c in label):
            break
        if length:
            labels.append(label.decode("ascii", "replace"))
        elif labels:
            found.append(".".join(labels))
            labels = []
        at += 1 + length
    return [name for name in found if name.isascii() and len(name) <= 253]
