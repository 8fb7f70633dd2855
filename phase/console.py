"""Writes lines for people to every console that the kernel writes to, and never waits for a stopped one.

The kernel's log is not used: which of its lines are shown depends on `loglevel=`, and a person must see
these lines in any case.
"""

import fcntl
import os
import select
import struct
import termios
import time

ACTIVE = "/sys/class/tty/console/active"
_MAX = 8
#: Limit for the time that a console takes for one line, and to drain its buffer, seconds.
_PATIENCE = 0.5


class Consoles:
    """The consoles of this machine, opened when first written to and then kept open.

    Closing the last descriptor of a serial line may wait for its other end.

    Args:
        active: the kernel's list of them.
        devices: directory of their device files.
    """

    def __init__(self, *, active: str = ACTIVE, devices: str = "/dev") -> None:
        self._active = active
        self._devices = devices
        self._open: list[int] | None = None

    def show(self, line: str) -> bool:
        """Write one line.

        Args:
            line: printable, without its newline.

        Returns:
            Whether any console took it whole.
        """
        if self._open is None:
            self._open = self._all()
        return any([_put(descriptor, f"{line}\n".encode("ascii", "replace")) for descriptor in self._open])

    def close(self) -> None:
        """Close them; for tests."""
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None

    def _all(self) -> list[int]:
        try:
            with open(self._active) as handle:
                names = handle.read(1024).split()[:_MAX]
        except OSError:
            names = []
        found = []
        for name in names or ["console"]:
            try:
                flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
                found.append(os.open(f"{self._devices}/{os.path.basename(name)}", flags))
            except OSError:
                continue  # in the list, and without a device behind it
        return found


def _put(descriptor: int, data: bytes) -> bool:
    end = time.monotonic() + _PATIENCE
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data and (left := end - time.monotonic()) > 0:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            poll.poll(left * 1000)
        except OSError:
            return False
    _drain(descriptor, end)
    return not data


def _drain(descriptor: int, end: float) -> None:
    """Wait until it is written: a mark, which takes another way, could otherwise land inside the line."""
    while time.monotonic() < end:
        try:
            answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return  # not a terminal
        if struct.unpack("i", answer)[0] == 0:
            return
        time.sleep(0.002)
