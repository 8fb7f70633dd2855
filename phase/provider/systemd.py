"""Tells systemd when the service is ready, and takes over the sockets that systemd has opened.

Without systemd nothing here does anything. Source: sd_notify(3), sd_listen_fds(3).
"""

import os
import socket
from typing import NamedTuple

from phase.provider.errors import ProviderError

_FIRST_FD = 3
#: Sockets that are taken over.
MAX_INHERITED = 16
_HINT = "Give ListenStream=PORT and, for the DHT, ListenDatagram=0.0.0.0:PORT."


def notify(state: str) -> None:
    """Tell the service manager something, such as `READY=1`.

    Args:
        state: assignments, one per line.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + place[1:] if place.startswith("@") else place)
            sender.sendall(state.encode())
        except OSError:
            return  # the service manager does not listen; serving does not depend on it


class Inherited(NamedTuple):
    """The sockets that systemd has opened for this process.

    Attributes:
        listeners: of TCP, each of them listening; the first one's port is the provider's.
        datagram: of UDP and IPv4, with the same port, for the DHT; None where there is not one.
    """

    listeners: list[socket.socket]
    datagram: socket.socket | None


def inherited() -> Inherited | None:
    """The sockets that systemd has opened for this process, if it has.

    Raises:
        ProviderError: they are not listening TCP sockets and at most one UDP socket of the same port.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not (count.isascii() and count.isdecimal() and len(count) <= 4 and 1 <= int(count) <= MAX_INHERITED):
        raise ProviderError(
            f"systemd hands over {count[:10] or 'no'} sockets, expected 1 to {MAX_INHERITED}", hint=_HINT
        )
    opened: list[socket.socket] = []
    try:
        for number in range(_FIRST_FD, _FIRST_FD + int(count)):
            opened.append(_taken(number))
        return _sorted(opened)
    except BaseException:
        for each in opened:
            each.close()
        raise


def _taken(number: int) -> socket.socket:
    try:
        found = socket.socket(fileno=number)
    except OSError as error:
        raise ProviderError(
            f"what systemd hands over is not a socket: {error.strerror}", hint=_HINT
        ) from error
    os.set_inheritable(number, False)
    return found


def _sorted(opened: list[socket.socket]) -> Inherited:
    listeners = [each for each in opened if _listens(each)]
    others = [each for each in opened if each not in listeners]
    datagrams = [each for each in others if (each.family, each.type) == (socket.AF_INET, socket.SOCK_DGRAM)]
    if len(datagrams) < len(others):
        raise ProviderError("systemd hands over a socket that is neither TCP nor UDP and IPv4", hint=_HINT)
    if not listeners or len(datagrams) > 1:
        raise ProviderError(
            f"systemd hands over {len(listeners)} TCP and {len(datagrams)} UDP sockets, "
            "expected 1 or more and at most 1",
            hint=_HINT,
        )
    port = listeners[0].getsockname()[1]
    if datagrams and datagrams[0].getsockname()[1] != port:
        raise ProviderError(
            f"systemd hands over UDP port {datagrams[0].getsockname()[1]} beside TCP port {port}; "
            "a provider's node of the DHT is looked for at the port with the same number",
            hint=_HINT,
        )
    return Inherited(listeners, datagrams[0] if datagrams else None)


def _listens(found: socket.socket) -> bool:
    if found.family not in (socket.AF_INET, socket.AF_INET6) or found.type != socket.SOCK_STREAM:
        return False
    return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
