"""Where a peer is: its key, and hints about hosts and relays."""

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from phase.peer.errors import PeerError

#: Limits for what one address may carry.
MAX_HOSTS = 16
MAX_RELAYS = 4
MAX_TEXT = 256
#: For error messages.
_FORM = "KEY, KEY@HOST:PORT or KEY@HOST:PORT,http://RELAY:PORT"
_KEY = re.compile("[0-9a-f]{64}")
_LABEL = re.compile("(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer's address. Only the key is a fact, since the peer must prove it; the rest are hints.

    Attributes:
        key: the Ed25519 public key, 64 lower-case hex digits.
        hosts: `HOST:PORT` of UDP, at most 16; the host an IPv4 address, an IPv6 address in
            brackets, or a name.
        relays: `http://` or `https://` URLs of relays that know the peer, at most 4.
    """

    key: str
    hosts: tuple[str, ...] = ()
    relays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every part.

        Raises:
            ValueError: a part is not what it should be; msgspec turns it into its own error in a decoder.
        """
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"{self.key[:80]!r} is not a node's key: it has 64 hex digits")
        if len(self.hosts) > MAX_HOSTS or len(self.relays) > MAX_RELAYS:
            raise ValueError(f"an address has at most {MAX_HOSTS} hosts and {MAX_RELAYS} relays")
        for host in self.hosts:
            split_host(host)
        for relay in self.relays:
            check_relay(relay)

    def __str__(self) -> str:
        hints = ",".join((*self.hosts, *self.relays))
        return f"{self.key}@{hints}" if hints else self.key

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address from a person.

        Args:
            text: `KEY[@HINT[,HINT…]]`; a hint is `HOST:PORT`, or the URL of a relay.

        Raises:
            PeerError: it is none; the message says why.
        """
        key, at, rest = text.strip().partition("@")
        hints = rest.split(",") if at else []
        relays = tuple(each for each in hints if "://" in each)
        try:
            return cls(key.lower(), tuple(each for each in hints if "://" not in each), relays)
        except ValueError as error:
            raise PeerError(f"the node {text[:120]!r}: {error}", hint=f"Write {_FORM}.") from None


def split_host(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`.

    Returns:
        The host without brackets, and the port.

    Raises:
        ValueError: it is not a host and a port.
    """
    host, _, port = text.rpartition(":")
    if len(text) > MAX_TEXT or not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65_536):
        raise ValueError(f"{text[:80]!r} has no port from 1 to 65535")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
    if not (_is_ip(inner, 6) if inner else _is_ip(host, 4) or _is_name(host)):
        raise ValueError(f"{text[:80]!r} does not name a host (an IPv6 address needs brackets)")
    return inner or host, int(port)


def join_host(host: str, port: int) -> str:
    """`HOST:PORT` of a host without brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_relay(url: str) -> None:
    """Check the URL of a relay.

    Raises:
        ValueError: it is not `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    """
    wrong = ValueError(f"{url[:80]!r} is not a relay: write http://HOST:PORT")
    if len(url) > MAX_TEXT or not url.isascii() or not url.isprintable() or " " in url:
        raise wrong
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    good = _is_ip(host, 6) if ":" in host else _is_ip(host, 4) or _is_name(host)
    if parts.scheme not in ("http", "https") or not good or port == 0:
        raise wrong
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise wrong


def _is_ip(text: str, version: int) -> bool:
    try:
        # Not `%zone`: a zone means nothing on another machine.
        return "%" not in text and ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    name = text.removesuffix(".")
    labels = name.split(".")
    return len(name) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()
