"""Packets as others send them, for tests."""

import ipaddress
from collections.abc import Sequence

from phase.discovery.interfaces import Interface
from phase.discovery.mdns import wire
from phase.discovery.mdns.claims import Offer, claims
from phase.discovery.mdns.sockets import PORT, Datagram
from phase.discovery.mdns.wire import SERVICE_NAME, Name, Record

ETH0 = Interface(2, "eth0", (ipaddress.ip_interface("192.0.2.2/24"), ipaddress.ip_interface("fe80::2/64")))
DOCKER0 = Interface(3, "docker0", (ipaddress.ip_interface("172.17.0.1/16"),))
LO = Interface(1, "lo", (ipaddress.ip_interface("127.0.0.1/8"),), loopback=True)


def instance(label: bytes) -> Name:
    return (label, *SERVICE_NAME)


def pointer(label: bytes, ttl: int = 4500) -> Record:
    return Record(SERVICE_NAME, wire.PTR, wire.pack_name(instance(label)), ttl)


def provider(
    *ips: str, channel: str = "stable", identity: str = "deadbeef", port: int = 8080, version: int = 7
) -> list[Record]:
    """All records of an honest provider."""
    said = claims([Offer(channel, "x86_64", version)], port=port, identity=identity)
    return said.all([ipaddress.ip_address(ip) for ip in ips])


def datagram(
    data: bytes | Sequence[Record], source: str = "192.0.2.1", interface: Interface = ETH0, port: int = PORT
) -> Datagram:
    if not isinstance(data, bytes):
        (data,) = wire.responses(list(data))
    return Datagram(data, ipaddress.ip_address(source), port, interface.number, False)
