"""What stands between this machine and a host: why it is not reached, and long packets that are lost."""

import errno
import socket

#: Bytes of data in one packet that are asked for, at first and then, where longer packets seem to be lost:
#: what passes wherever IPv6 does (RFC 8200), and what passes everywhere (RFC 9293, 3.7.1).
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
    """Hosts that take questions and whose answers do not arrive: the length of their packets may be why.

    A router may lose what is too long for the next link, and the message that says so may be lost, too
    (RFC 2923). Who answers finds out, or does not; who asks can say that it takes short packets only.
    """

    def __init__(self) -> None:
        self._stalls: dict[str, int] = {}

    def stalled(self, host: str) -> None:
        """Nothing of an answer has arrived from a host."""
        if host in self._stalls or len(self._stalls) < _MOST_HOSTS:
            self._stalls[host] = self._stalls.get(host, 0) + 1

    def ask(self, connection: socket.socket, host: str) -> None:
        """Before it connects, let a connection ask for short packets, if there is a reason."""
        stalls = min(self._stalls.get(host, 0), len(_SEGMENTS))
        if stalls:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENTS[stalls - 1])


def explained(problem: Exception | None, host: str) -> tuple[str, str]:
    """Why there is no connection, and what to try.

    Args:
        problem: what resolving or connecting raised last; None where there was no address.
        host: its name or address.
    """
    if isinstance(problem, socket.gaierror):
        if problem.errno == socket.EAI_AGAIN:
            return f"no name server answers for {host}", _NAME_HINT
        return f"{host} has no address: {problem.strerror}", _NAME_HINT
    if isinstance(problem, OSError):
        return problem.strerror or str(problem), _HINTS.get(problem.errno or 0, "")
    return str(problem), ""
