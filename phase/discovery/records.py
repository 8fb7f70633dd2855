"""The records that discovery yields, and the checks of a claim from the network before it becomes one.

A record is a hint: it is not trusted, and only names an address to ask. The checks limit the cost of a
hostile answer, and keep control characters away from consoles.
"""

import ipaddress
from collections.abc import Mapping
from typing import Literal, NamedTuple

from phase.errors import PhaseError

#: Of providers, and of nodes that take jobs.
SERVICE = "_phase-image._tcp.local."
NODE_SERVICE = "_phase-node._tcp.local."
MAX_TXT = 400
MAX_NAME = 64
#: Limit for the DHT nodes to begin with.
MAX_PEERS = 8


class DiscoveryError(PhaseError):
    """A search for providers was not possible, or found none."""


class Provider(NamedTuple):
    """A claim that a provider exists at an address."""

    url: str
    channel: str
    arch: str
    #: Version of the release that it claims to have; None if it did not say.
    version: int | None
    source: Literal["cmdline", "mdns", "dht"]
    id: str


class Heard(NamedTuple):
    """A provider that a network tells of; `rank` numbers the addresses of the same provider, from 0."""

    provider: Provider
    rank: int


def peer(text: str) -> tuple[str, int]:
    """Read the address of a DHT node: `HOST:PORT`, the host a name or an IPv4 address.

    Raises:
        DiscoveryError: it is neither.
    """
    host, _, port = text.rpartition(":")
    labels = host.split(".") if len(host) <= 253 and host.isascii() else []
    good = labels and all(0 < len(one) <= 63 and one.replace("-", "a").isalnum() for one in labels)
    if not good or not (port.isascii() and port.isdecimal()) or not 0 < int(port[:6]) < 65_536:
        raise DiscoveryError(f"{text[:80]!r} is not a DHT node", hint="For example 192.0.2.1:8080.")
    return host, int(port)


def from_txt(
    txt: Mapping[bytes, bytes | None],
    address: str,
    port: int | None,
    *,
    channel: str,
    arch: str,
    zone: str = "",
    size: int = 0,
) -> Provider | None:
    """Read an mDNS answer.

    Args:
        txt: the pairs of the TXT record.
        address: an IP address of the host.
        port: of the SRV record.
        channel: the wanted channel.
        arch: the wanted architecture.
        zone: interface of a link-local address.
        size: bytes of the whole TXT record, if known.

    Returns:
        The provider; None if it offers another channel or architecture, or the answer is malformed.
    """
    size = size or sum(len(key) + len(value or b"") + 2 for key, value in txt.items())
    if len(txt) > 16 or size > MAX_TXT:
        return None
    values = {key: value or b"" for key, value in txt.items()}
    if values.get(b"txtvers") != b"1":
        return None
    if values.get(b"channel") != channel.encode() or values.get(b"arch") != arch.encode():
        return None
    identity = _name(values.get(b"id", b""))
    version = values.get(b"version", b"")
    if identity is None or not port or not 0 < port < 65_536:
        return None
    if version and not (version.isdigit() and len(version) <= 15):
        return None
    url = http_url(address, port, zone=zone)
    if url is None:
        return None
    return Provider(url, channel, arch, int(version) if version else None, "mdns", identity)


def _name(value: bytes) -> str | None:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        return None
    good = 0 < len(text) <= MAX_NAME and all(c.isalnum() or c in "-_." for c in text)
    return text if good else None


def http_url(address: str, port: int, *, zone: str = "") -> str | None:
    """The URL of a provider; None if that is not the address of one host.

    Args:
        address: IPv4 or IPv6.
        port: TCP.
        zone: interface of a link-local IPv6 address; written as in RFC 6874.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if ip.is_multicast or ip.is_unspecified or address == "255.255.255.255":
        return None
    if ip.version == 4:
        return f"http://{ip}:{port}"
    if ip.ipv4_mapped or (ip.is_link_local and not zone):
        return None
    return f"http://[{ip}%25{zone}]:{port}" if zone else f"http://[{ip}]:{port}"


def host_of(url: str) -> str:
    """The host of an address that `http_url` has made, without its brackets and its zone."""
    return url.removeprefix("http://").rpartition(":")[0].strip("[]").partition("%")[0]
