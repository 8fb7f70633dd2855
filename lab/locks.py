"""Locks between the processes of one host: workers of a run, and other runs."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def exclusive(path: Path, mode: int) -> Iterator[None]:
    """Hold a file's lock, once no other process holds it.

    Args:
        path: the file; made when it is not there.
        mode: of a file that is made.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
