"""The way that connections take out of this machine: directly, through Tor, or not at all.

A mode decides it (`phase.modes`). Tor's proxy speaks SOCKS 5 and resolves names itself, so that no name
server hears of them.

Source: RFC 1928.
"""

import ipaddress
import socket
from time import monotonic
from typing import NamedTuple

#: Seconds for a connection through Tor: a circuit may have to be built.
PROXY_SECONDS = 60.0
_VERSION, _CONNECT, _NO_PASSWORD = 5, 1, 0
_IPV4, _NAME, _IPV6 = 1, 3, 4
#: Answers of a SOCKS server, and of Tor to onion addresses.
_REASONS = {
    1: "it failed",
    2: "it does not allow that",
    3: "the network is unreachable",
    4: "the host is unreachable, or is not known",
    5: "the connection was refused",
    6: "the connection took too long",
    0xF0: "there is no such onion service",
    0xF2: "the onion service does not answer",
}


class WayError(Exception):
    """The proxy does not connect to a host; the message says why."""


class Way(NamedTuple):
    """How to get to a provider.

    Attributes:
        refusal: why no provider may be reached at all; empty where some may.
        hint: what to try then.
        lonely: the mode in which neither routes nor name servers are used; empty where they are.
        proxy: Tor's proxy, address and port; None to connect directly.
        near: whether only hosts on this machine's own networks are reached; see `stay_near`.
    """

    refusal: str = ""
    hint: str = ""
    lonely: str = ""
    proxy: tuple[str, int] | None = None
    near: bool = False


def stay_near(endpoint: socket.socket) -> None:
    """Keep a socket's packets on the networks of this machine: no router passes them on.

    Those of IPv4 are not even given to a router. A listening socket passes it on to its connections, so that
    no machine beyond a router can open one.
    """
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    endpoint.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    if endpoint.family == socket.AF_INET6:
        endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)


DIRECT = Way()


def through(connection: socket.socket, host: str, port: int, deadline: float) -> None:
    """Have a proxy connect to a host.

    Args:
        connection: to the proxy; to the host afterwards.
        host: its name or address.
        port: its TCP port.
        deadline: `time.monotonic()` when to give up.

    Raises:
        WayError: it does not.
        OSError: it does not answer.
    """
    _send(connection, bytes((_VERSION, 1, _NO_PASSWORD)), deadline)
    if _receive(connection, 2, deadline) != bytes((_VERSION, _NO_PASSWORD)):
        raise WayError("it does not speak SOCKS 5, or wants a password")
    _send(connection, bytes((_VERSION, _CONNECT, 0)) + _target(host) + port.to_bytes(2, "big"), deadline)
    version, answer, _, kind = _receive(connection, 4, deadline)
    if version != _VERSION:
        raise WayError("it does not speak SOCKS 5")
    if answer:
        raise WayError(_REASONS.get(answer, f"it answers {answer}"))
    # The address it connects from is of no interest.
    length = {_IPV4: 4, _IPV6: 16}.get(kind) or _receive(connection, 1, deadline)[0]
    _receive(connection, length + 2, deadline)


def _target(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if "%" in host or not 0 < len(name) < 256:
            raise WayError(f"{host[:80]} is not a host that it can reach") from None
        return bytes((_NAME, len(name))) + name
    if address.version == 6 and address.scope_id:
        raise WayError(f"{host[:80]} is on this network only")
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def _send(connection: socket.socket, data: bytes, deadline: float) -> None:
    connection.settimeout(max(deadline - monotonic(), 0.001))
    connection.sendall(data)


def _receive(connection: socket.socket, length: int, deadline: float) -> bytes:
    found = b""
    while len(found) < length:
        connection.settimeout(max(deadline - monotonic(), 0.001))
        block = connection.recv(length - len(found))
        if not block:
            raise WayError("it closed the connection")
        found += block
    return found
