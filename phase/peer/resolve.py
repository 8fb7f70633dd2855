"""From names to numbers, by this machine's own resolver, and addresses to listen on."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from phase.errors import reason
from phase.peer.address import MAX_HOSTS, Address, join_host, split_host
from phase.peer.errors import PeerError, UnreachableError

#: Limit for the addresses of one name that are used.
_MOST = 4


async def resolve(address: Address) -> Address:
    """Replace the names in an address by their IP addresses.

    A relay with `https` keeps its name, which its certificate is for.

    Raises:
        UnreachableError: none of the names has an address, and nothing else is known.
    """
    hosts: list[str] = []
    relays: list[str] = []
    failed: list[str] = []
    for each in address.hosts:
        hosts += await _numbers(*split_host(each), failed)
    for each in address.relays:
        parts = urlsplit(each)
        if parts.scheme == "https":
            relays.append(each)
        else:
            found = await _numbers(parts.hostname or "", parts.port or 80, failed)
            relays += [f"http://{one}" for one in found[:1]]
    if failed and not hosts and not relays:
        raise UnreachableError(
            f"the node {address.key} cannot be reached: {failed[0]}", hint="Give an IP address."
        )
    return msgspec.structs.replace(address, hosts=tuple(hosts[:MAX_HOSTS]), relays=tuple(relays))


async def _numbers(host: str, port: int, failed: list[str]) -> list[str]:
    """`HOST:PORT` of each address of a host; why there is none goes to `failed`."""
    try:
        return [join_host(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        failed.append(f"{host} has no address: {reason(error) if isinstance(error, OSError) else error}")
        return []
    numbers = dict.fromkeys(str(each[4][0]) for each in found if "%" not in str(each[4][0]))
    return [join_host(each, port) for each in list(numbers)[:_MOST]]


def binds(listen: Sequence[str]) -> list[str]:
    """The addresses to bind for those to listen on: always one of each family that this machine has.

    The library binds all addresses of a family that it is told nothing about. So a family that is not
    listened on is bound on loopback.

    Args:
        listen: `HOST:PORT`, numeric, at most one of each family; port 0 for any.

    Raises:
        PeerError: one is not numeric, or there are two of a family.
    """
    chosen: dict[int, str] = {}
    for each in listen:
        host, _, port = each.rpartition(":")
        try:
            version = ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version
            good = port.isdecimal() and int(port[:6]) < 65_536 and (version == 4) == ("[" not in host)
        except ValueError:
            good = False
        if not good:
            raise PeerError(f"{each[:80]!r} is not an address to listen on", hint=_HINT)
        if version in chosen:
            raise PeerError(f"{chosen[version]} and {each} are two addresses of one family", hint=_HINT)
        chosen[version] = each
    if not _has_ipv6():
        if chosen.get(6, _ANY_6).rpartition(":")[0] != "[::]":
            raise PeerError(f"cannot listen on {chosen[6]}: this machine has no IPv6", hint=_HINT)
        return [chosen.get(4, "127.0.0.1:0")]
    return [chosen.get(4, "127.0.0.1:0"), chosen.get(6, "[::1]:0")]


_ANY_6 = "[::]:0"
_HINT = "Give one address of IPv4 and one of IPv6, such as 0.0.0.0:4433 and [::]:4433."


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
