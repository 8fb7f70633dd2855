"""A virtio port: a second line into a machine, on a socket that QEMU comes to."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.console import Console


class Port(Console):
    """A virtio port. A kernel that dies says so on the serial console, and this line just falls silent."""

    def __init__(
        self,
        serial: Console,
        stream: socket.socket,
        log: Path,
        *,
        lost: Callable[[], str],
        factor: float = 1.0,
        elsewhere: Callable[[Console], None] = lambda console: None,
    ) -> None:
        self._serial = serial
        super().__init__(f"{serial.name} (port)", stream, log, lost=lost, factor=factor, elsewhere=elsewhere)

    def send(self, text: str) -> None:
        """Type, to a machine that lives.

        Raises:
            MachineDied: its serial console says that it has died.
            InfrastructureError: the port is gone, or takes nothing any more.
        """
        self._serial.check()
        super().send(text)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that QEMU comes to; its file goes when it has, or when it does not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            listener.listen(1)
            listener.settimeout(0.1)
            yield listener
        finally:
            path.unlink()


def accept(listener: socket.socket) -> socket.socket | None:
    """Where QEMU is, once it has come; None when it has not within a moment."""
    try:
        stream = listener.accept()[0]
    except TimeoutError:
        return None
    stream.settimeout(None)
    return stream
