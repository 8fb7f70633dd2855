"""Completes a provider's address as people write it to a URL.

It is apart from `phase.fetch`, since reading a command line does not need an HTTP client.
"""

import ipaddress
import re

from phase.discovery.records import DiscoveryError

#: The port of `phase serve`, for an address without a scheme and a port.
PORT = 8080
_MAX = 512
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,2}(?=[^/])")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_PATH = re.compile(r"[!$-;=A-Z\[\]^-~]*")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")


def named(text: str) -> str:
    """Read a provider's address from a person.

    Args:
        text: `http://HOST[:PORT][/PREFIX]`, or a part of it. The scheme may be in any case or left out; if
            scheme and port are left out, the port is 8080. An IPv6 address may lack its brackets. Slashes or
            an encoded space at the end are dropped.

    Returns:
        `http://HOST[:PORT][/PREFIX]`.

    Raises:
        DiscoveryError: it cannot be understood; the message says why.
    """
    shown = text[:80]
    rest = text.strip().strip('"').removeprefix("%20")
    while rest.endswith(("%20", "/")):
        rest = rest.removesuffix("%20").removesuffix("/")
    if not rest or not rest.isascii() or not rest.isprintable():
        raise DiscoveryError(f"{shown!r} is not an address", hint="Write http://HOST:PORT.")
    scheme = _SCHEME.match(rest)
    if scheme is not None:
        if scheme[1].lower() != "http":
            raise DiscoveryError(
                f"{shown!r}: Phase does not fetch by {scheme[1].lower()[:20]}",
                hint="Write http://HOST:PORT; the release's signatures carry the trust.",
            )
        rest = rest[scheme.end() :]
    authority, slash, path = rest.partition("/")
    if not _PATH.fullmatch(path):
        raise DiscoveryError(f"{shown!r} has characters that no address has", hint="Write http://HOST:PORT.")
    host, port = _split(authority, shown)
    if port is None and scheme is None:
        port = PORT
    found = f"http://{host}{'' if port is None else f':{port}'}{slash}{path}"
    if len(found) > _MAX:
        raise DiscoveryError(f"the address {shown!r} has {len(found)} characters; the limit is {_MAX}")
    return found


def _split(authority: str, shown: str) -> tuple[str, int | None]:
    """The host, in brackets if it is an IPv6 address, and the port."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise DiscoveryError(f"{shown!r} has no IPv6 address in its brackets", hint=_BRACKETS)
        return f"[{host}]", _port(rest[1:], shown) if rest else None
    if authority.count(":") > 1:
        return _bare(authority, shown)
    host, colon, port = authority.partition(":")
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise DiscoveryError(f"{shown!r} does not name a host", hint="Write http://HOST:PORT.")
    if name.replace(".", "").isdecimal() and not _is_ipv4(name):
        raise DiscoveryError(f"{shown!r} is not an IPv4 address", hint="Write http://192.0.2.1:8080.")
    return host, _port(port, shown) if colon else None


_BRACKETS = "Write http://[2001:db8::1]:8080."


def _bare(authority: str, shown: str) -> tuple[str, int | None]:
    """An IPv6 address without brackets, perhaps with a port that looks like a part of it."""
    whole = _is_ipv6(authority)
    host, _, port = authority.rpartition(":")
    if _is_ipv6(host) and port.isdecimal() and (not whole or port == "80" or len(port) > 3):
        if whole:
            raise DiscoveryError(f"{shown!r}: its last part may be a port", hint=_BRACKETS)
        return f"[{host}]", _port(port, shown)
    if not whole:
        raise DiscoveryError(f"{shown!r} is not an address", hint=_BRACKETS)
    return f"[{authority}]", None


def _port(text: str, shown: str) -> int:
    if not (text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65_536):
        raise DiscoveryError(f"{shown!r} has no port from 1 to 65535", hint="Write http://HOST:PORT.")
    return int(text)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
