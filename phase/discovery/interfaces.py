"""Which addresses to speak multicast DNS on.

Named one by one: asking for the default would need a default route, and a boot segment has none.
"""

import ipaddress
from typing import NamedTuple

import ifaddr


class Address(NamedTuple):
    """An IPv4 address of this machine and its network."""

    ip: str
    network: ipaddress.IPv4Network


def addresses() -> list[Address]:
    """Every IPv4 address of this machine; the loopback one only where there is no other."""
    found = [
        Address(str(ip.ip), ipaddress.IPv4Network(f"{ip.ip}/{ip.network_prefix}", strict=False))
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str)
    ]
    outside = [address for address in found if not address.ip.startswith("127.")]
    return outside or found


def nearest(candidates: list[str], own: list[Address]) -> str | None:
    """The candidate on a network this machine is on, else the first; nothing where there is none."""
    for candidate in candidates:
        ip = ipaddress.IPv4Address(candidate)
        if any(ip in address.network for address in own):
            return candidate
    return candidates[0] if candidates else None
