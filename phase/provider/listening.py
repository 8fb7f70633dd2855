"""Opens the sockets that a provider listens on: one for each address, IPv4 and IPv6 apart.

They are apart so that an IPv4 client has one address in limits and logs, and not a mapped IPv6 address too.
"""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import NamedTuple

from phase.provider.errors import ProviderError

#: All addresses of this machine.
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104
#: Limit for the addresses that are listened on.
MAX_SOCKETS = 16
_ADDRESS_HINT = "Give an address of this machine; `ip address` lists them."


def listen(binds: Sequence[str], port: int, *, backlog: int = 1024) -> list[socket.socket]:
    """Open the sockets that all processes accept from.

    Args:
        binds: addresses or names of this machine, a link-local address with its zone (`fe80::1%eth0`);
            `0.0.0.0` is all of IPv4, `::` is all of IPv4 and IPv6. Empty means `::`.
        port: the same for all; 0 for any free one.
        backlog: connections that may wait to be accepted, for each socket.

    Raises:
        ProviderError: one of them cannot be opened; the message names it.
    """
    wanted: dict[_Place, str] = {}
    for bind in binds or ("::",):
        for place in _resolve(bind):
            wanted.setdefault(place, bind)
    if len(wanted) > MAX_SOCKETS:
        raise ProviderError(f"--bind gives {len(wanted)} addresses to listen on; the limit is {MAX_SOCKETS}")
    opened: list[socket.socket] = []
    try:
        for place, bind in wanted.items():
            # Where the kernel has no IPv6, `::` alone means all of IPv4.
            optional = place.host == "::" and bind == "::" and len(wanted) > 1
            try:
                opened.append(_open(place, port, backlog))
            except (OSError, OverflowError) as error:
                if optional and getattr(error, "errno", 0) in _NO_IPV6:
                    continue
                raise _refused(bind, port, error) from error
            port = opened[0].getsockname()[1]
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def hosts(sockets: Sequence[socket.socket]) -> list[str]:
    """The numeric addresses that sockets listen on; `0.0.0.0` and `::` each for one IP version."""
    found: list[str] = []
    for each in sockets:
        name = each.getsockname()
        host = str(name[0])
        if each.family == socket.AF_INET6:
            if name[3] and "%" not in host:
                with contextlib.suppress(OSError):
                    host += f"%{socket.if_indextoname(name[3])}"
            if host == "::" and not each.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                found.append("0.0.0.0")  # noqa: S104
        found.append(host)
    return list(dict.fromkeys(found))


def urls(sockets: Sequence[socket.socket], scheme: str) -> list[str]:
    """The URLs of these sockets, for people."""
    port = sockets[0].getsockname()[1]
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host in hosts(sockets)]


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


class _Place(NamedTuple):
    family: int
    host: str
    scope: int = 0


def _resolve(bind: str) -> list[_Place]:
    text = bind.strip().removeprefix("[").removesuffix("]")
    if text == "::":
        return [_Place(socket.AF_INET, EVERYWHERE[0]), _Place(socket.AF_INET6, EVERYWHERE[1])]
    try:
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ProviderError(f"cannot listen on {bind!r}: {why}", hint=_ADDRESS_HINT) from error
    return [
        _Place(family, str(address[0]).partition("%")[0], int(address[3]) if len(address) == 4 else 0)
        for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]


def _open(place: _Place, port: int, backlog: int) -> socket.socket:
    listener = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((place.host, port, 0, place.scope))
        else:
            listener.bind((place.host, port))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _refused(bind: str, port: int, error: OSError | OverflowError) -> ProviderError:
    number = getattr(error, "errno", 0)
    hint = "Is another provider running? Choose another --port."
    if number == errno.EADDRNOTAVAIL:
        hint = _ADDRESS_HINT
    elif number in (errno.EACCES, errno.EPERM):
        hint = "Ports below 1024 need root, or CAP_NET_BIND_SERVICE. Choose another --port."
    elif number in (errno.EINVAL, errno.ENODEV) and _needs_zone(bind):
        hint = f"A link-local address needs its interface: --bind {bind.partition('%')[0]}%eth0."
    return ProviderError(
        f"cannot listen on {bind} port {port}: {getattr(error, 'strerror', None) or error}", hint=hint
    )


def _needs_zone(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind.partition("%")[0]).is_link_local
    except ValueError:
        return False
