"""The address that others see of this node: what a NAT has made of it.

A relay tells the IP address by HTTP, a peer tells address and port by datagram. Both are hints. A false one
makes peers try a wrong address. So few are kept, and only from those that this node has chosen.
"""

import asyncio
import ipaddress
import logging

import msgspec

from phase.foreign import MalformedError, read_json
from phase.peer.address import join_host, split_host

_log = logging.getLogger(__name__)
#: Limit for a relay's answer, bytes, and seconds for it.
_MAX_ANSWER = 256
_ANSWER_SECONDS = 5.0
#: The first byte of a peer's datagram: nothing but a sign of life, or the address that it sees.
BEAT, SEEN = b"\0", b"\1"
#: Limit for the address in it, bytes.
_MAX_TOLD = 64


class _Answer(msgspec.Struct):
    address: str


async def ask(relay: str) -> str:
    """Ask a relay for the address that it sees.

    Args:
        relay: its URL.

    Returns:
        An IP address; empty if the relay does not know this question, or does not answer.
    """
    # Loaded here, since a node without relays does not need it.
    import aiohttp

    try:
        async with (
            asyncio.timeout(_ANSWER_SECONDS),
            aiohttp.ClientSession() as session,
            session.get(f"{relay.rstrip('/')}/seen", allow_redirects=False) as answer,
        ):
            body = await answer.content.read(_MAX_ANSWER) if answer.status == 200 else b""
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        _log.debug("the relay %s does not tell which address it sees: %s", relay, error)
        return ""
    try:
        found = read_json(body, _Answer).address
    except MalformedError:
        return ""
    return found if plausible(found) else ""


def tell(remote: str) -> bytes:
    """The datagram that tells a peer where it is seen.

    Args:
        remote: `HOST:PORT`.
    """
    return SEEN + remote.encode()


def told(datagram: bytes) -> str:
    """The address that a peer's datagram tells.

    Args:
        datagram: from a peer.

    Returns:
        `HOST:PORT`, numeric; empty if it tells none, or one that no other machine could use.
    """
    if not datagram.startswith(SEEN) or len(datagram) > 1 + _MAX_TOLD:
        return ""
    try:
        host, port = split_host(datagram[1:].decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        return ""
    return join_host(host, port) if plausible(host) else ""


def plausible(host: str) -> bool:
    """Whether it is the IP address of one machine that others could reach."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved)
