"""Reasons why a host cannot be reached, and a way around routers that lose long packets."""

import errno
import socket

#: Packet lengths, bytes of data, to ask for when longer packets seem to be lost. The first passes wherever
#: IPv6 does (RFC 8200), the second everywhere (RFC 9293, 3.7.1).
_SEGMENTS = (1220, 536)
_MOST_HOSTS = 64
_NAME_HINT = "Write its address in place of its name, or check the network's name servers."
_HINTS = {
    errno.ENETUNREACH: "This machine has no route there: check the network's router, or its DHCP server.",
    errno.EHOSTUNREACH: "Nothing answers at this address: is the machine switched on, on this network?",
    errno.ECONNREFUSED: "Is `phase serve` running there?",
    errno.ETIMEDOUT: "Does a firewall drop the packets?",
}


class Segments:
    """Hosts that accept requests but whose answers do not arrive, perhaps since their packets are too long.

    A router may drop a packet that is too long for the next link, and its message about that may be lost,
    too (RFC 2923). The server may not find out. The client can ask for short packets.
    """

    def __init__(self) -> None:
        self._stalls: dict[str, int] = {}

    def stalled(self, host: str) -> None:
        """A host has accepted a request, and no part of its answer has arrived."""
        if host in self._stalls or len(self._stalls) < _MOST_HOSTS:
            self._stalls[host] = self._stalls.get(host, 0) + 1

    def ask(self, connection: socket.socket, host: str) -> None:
        """Make a connection ask for short packets, if its host has stalled. Call it before it connects."""
        stalls = min(self._stalls.get(host, 0), len(_SEGMENTS))
        if stalls:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENTS[stalls - 1])


def explained(problem: Exception | None, host: str, lonely: str = "") -> tuple[str, str]:
    """Why there is no connection, and what to try.

    Args:
        problem: the last error of resolving or connecting; None if there was no address.
        host: its name or address.
        lonely: the mode in which nothing is asked or sent beyond the network segment; empty for others.
    """
    if lonely and isinstance(problem, socket.gaierror):
        return f"{lonely} mode asks no name server for {host}", "Write its address in place of its name."
    if lonely and isinstance(problem, OSError) and problem.errno == errno.ENETUNREACH:
        return f"{host} is beyond this network, where {lonely} mode sends nothing", ""
    if isinstance(problem, socket.gaierror):
        if problem.errno == socket.EAI_AGAIN:
            return f"no name server answers for {host}", _NAME_HINT
        return f"{host} has no address: {problem.strerror}", _NAME_HINT
    if isinstance(problem, OSError):
        return problem.strerror or str(problem), _HINTS.get(problem.errno or 0, "")
    return str(problem), ""
