"""Files that a person names: looked at before they are read, and read within a limit."""

import errno
import os
import select
import stat
import time
from pathlib import Path

from phase.errors import PhaseError

#: Seconds that a writer to a FIFO has to appear, and to write its next bytes.
APPEAR_SECONDS, WRITE_SECONDS = 5.0, 60.0


def read(path: Path, what: str, limit: int, *, kind: type[PhaseError] = PhaseError) -> bytes:
    """Read a file, or what a pipe such as `<(command)` brings.

    Args:
        path: as it was given; links are followed.
        what: what it is, for people: `trusted root`.
        limit: bytes it may have.
        kind: the error.

    Raises:
        PhaseError: it cannot be read, it is another kind of file, or it is too long.
    """
    try:
        # Without O_NONBLOCK, a FIFO without a writer would be waited for without end.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            data = _drain(opened, limit + 1)
        finally:
            os.close(opened)
    except OSError as error:
        raise unreadable(path, what, error, kind=kind) from error
    if len(data) > limit:
        raise kind(f"{what} {path} is too long; the limit is {limit} bytes".lstrip())
    return data


def unreadable(path: Path, what: str, error: OSError, *, kind: type[PhaseError] = PhaseError) -> PhaseError:
    """The error that says that a file cannot be read, and why."""
    return kind(f"{what} {path} cannot be read: {error.strerror or error}".lstrip())


def _drain(opened: int, most: int) -> bytes:
    mode = os.fstat(opened).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise OSError(errno.EINVAL, "it is a block device or a socket")
    data = bytearray()
    appear = time.monotonic() + APPEAR_SECONDS
    while len(data) < most:
        try:
            block = os.read(opened, most - len(data))
        except BlockingIOError:
            if not select.select([opened], [], [], WRITE_SECONDS)[0]:
                raise TimeoutError(errno.ETIMEDOUT, "nothing is written to it") from None
            continue
        if block:
            data += block
        elif data or not stat.S_ISFIFO(mode):
            break
        elif time.monotonic() > appear:
            raise OSError(errno.ENXIO, "nothing is written to it")
        else:
            time.sleep(0.02)
    return bytes(data)
