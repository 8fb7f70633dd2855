"""What systemd wants of a service: word when it is ready, and the socket it has opened already.

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
            return  # a manager that does not listen is none of our business


def inherited() -> socket.socket | None:
    """The listening socket that systemd has opened for this process, if it has.

    Raises:
        ProviderError: what it hands over is not one listening TCP socket.
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
        raise ProviderError(f"what systemd hands over is not a socket: {error.strerror}") from error
    if found.type != socket.SOCK_STREAM or found.family == socket.AF_UNIX or not listening:
        found.close()
        raise ProviderError("what systemd hands over is not a listening TCP socket")
    os.set_inheritable(_FIRST_FD, False)
    return found
