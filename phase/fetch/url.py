"""A provider's address, taken apart."""

import re
from typing import NamedTuple

from phase.fetch.errors import UrlError

_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")


class Url(NamedTuple):
    """A provider's address, taken apart."""

    text: str
    host: str
    port: int
    #: Path in front of the provider's own, without a slash at the end.
    prefix: str

    @property
    def authority(self) -> str:
        """The value of the Host field; a zone is left out, since it is local (RFC 6874, section 4)."""
        host = self.host.partition("%")[0]
        host = f"[{host}]" if ":" in host else host
        return host if self.port == 80 else f"{host}:{self.port}"


def parse_url(text: str) -> Url:
    """Take a provider's address apart.

    Args:
        text: `http://HOST[:PORT][/PREFIX]`; HOST may be an IPv6 address in brackets, a link-local one with
            its interface: `[fe80::1%25eth0]`, or as people write it `[fe80::1%eth0]`.

    Raises:
        UrlError: it is something else.
    """
    problem = UrlError(f"{text[:200]!r} is not a provider's address", hint="Give it as http://HOST:PORT.")
    if not text.startswith("http://") or len(text) > 512:
        raise problem
    if not text.isascii() or any(c <= " " or c in '\x7f?#@\\"<>' for c in text):
        raise problem
    authority, slash, path = text.removeprefix("http://").partition("/")
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise problem
        # Written as the resolver expects; whether the interface exists shows when it connects.
        number, percent, zone = host.partition("%")
        zone = zone.removeprefix("25") if len(zone) > 2 else zone
        if percent and not _ZONE.fullmatch(zone):
            raise problem
        host = number + percent + zone
        port = rest[1:]
        colon = bool(rest)
    else:
        host, sep, port = authority.partition(":")
        colon = bool(sep)
    if not host or (colon and not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65_536)):
        raise problem
    return Url(text, host, int(port) if colon else 80, (slash + path).rstrip("/"))


def redirected(url: Url, location: str) -> str | None:
    """The path on the same server that a redirect leads to; None if it leads elsewhere.

    Trust does not depend on the server, but a provider must not make us ask others on its behalf: a
    machine's own network may have servers that do things when they are asked.

    Args:
        url: who redirects.
        location: the field's value; relative paths are not understood.
    """
    if len(location) > 1024 or not location.isascii() or any(c <= " " or c in "\x7f#" for c in location):
        return None
    if location.startswith("http://"):
        authority, slash, path = location.removeprefix("http://").partition("/")
        if authority.lower() not in (url.authority.lower(), f"{url.authority}:80".lower()):
            return None
        return slash + path if slash else None
    return location if location.startswith("/") and not location.startswith("//") else None
