"""Tells systemd when the service is ready, and takes over the socket that systemd has opened.

Without systemd nothing here does anything. Source: sd_notify(3), sd_listen_fds(3).
"""

import os
import socket

from phase.provider.errors import ProviderError

_FIRST_FD = 3


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


def inherited() -> socket.socket | None:
    """The listening socket that systemd has opened for this process, if it has opened one.

    Raises:
        ProviderError: systemd hands over something else than one listening TCP socket.
    """
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise ProviderError(
            f"systemd hands over {count[:10] or 'no'} sockets, expected 1", hint="Give one ListenStream=."
        )
    try:
        found = socket.socket(fileno=_FIRST_FD)
        listening = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ProviderError(
            f"systemd hands over a descriptor that is not a socket: {error.strerror}"
        ) from error
    if found.type != socket.SOCK_STREAM or found.family == socket.AF_UNIX or not listening:
        found.close()
        raise ProviderError("systemd hands over a socket that is not a listening TCP socket")
    os.set_inheritable(_FIRST_FD, False)
    return found
