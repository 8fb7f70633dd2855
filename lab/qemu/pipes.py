"""A serial port as two pipes, in which what a machine says waits while its reader is busy.

A serial port writes byte by byte, and a UNIX socket holds some 280 such writes. Then QEMU has nowhere to put
the next byte; a kernel waits 10 ms for it and goes on without. A pipe holds 64 KiB.
"""

import errno
import os
import select
import threading
import time
from pathlib import Path

from lab.console import SEND_SECONDS


class Pipes:
    """What QEMU's `pipe` character device opens, with the words of a socket.

    Args:
        path: QEMU says into `PATH.out` and takes what is typed out of `PATH.in`; made here.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [path.with_name(path.name + end) for end in (".in", ".out")]
        for each in self._paths:
            os.mkfifo(each, 0o600)
        self._typed = -1
        # Ours before QEMU has its own, so that nothing waits for anything.
        self._said = os.open(self._paths[1], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._ended, self._end = os.pipe()
        self._closing = threading.Lock()
        self._readable = select.poll()
        for descriptor in (self._said, self._ended):
            self._readable.register(descriptor, select.POLLIN)

    def connect(self) -> "Pipes | None":
        """These, once QEMU has opened them; None when it has not yet."""
        try:
            self._typed = os.open(self._paths[0], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            time.sleep(0.005)
            return None
        return self

    def unlink(self) -> None:
        """Remove the files: both sides have them open, or never will."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def recv(self, size: int) -> bytes:
        """What has been said, so many bytes at most: waits for the first. Empty when that is all."""
        while True:
            # `poll` reports nothing of a pipe that has not been opened for writing yet.
            told = self._readable.poll()
            try:
                return os.read(self._said, size)
            except BlockingIOError:
                if any(descriptor == self._ended for descriptor, _ in told):
                    return b""

    def sendall(self, data: bytes) -> None:
        """Type all of it.

        Raises:
            OSError: QEMU has gone, or takes nothing; or these are closed.
        """
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._typed, left) :]
            except BlockingIOError:
                writable = select.poll()
                writable.register(self._typed, select.POLLOUT)
                if not writable.poll(SEND_SECONDS * 1000):
                    raise TimeoutError(f"nothing was taken for {SEND_SECONDS} s") from None

    def shutdown(self, how: int) -> None:
        """End `recv`, when it has read all there is; `how` is a socket's."""
        self._close("_end")

    def close(self) -> None:
        """Let go of them. Safe to call again."""
        for name in ("_end", "_typed", "_said", "_ended"):
            self._close(name)

    def _close(self, name: str) -> None:
        # Once only: its number may be another file's by then.
        with self._closing:
            descriptor: int = getattr(self, name)
            setattr(self, name, -1)
        if descriptor >= 0:
            os.close(descriptor)
