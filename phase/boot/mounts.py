"""Mounting what only some machines have: its kernel modules are loaded then, not before."""

import ctypes
import os

_BUSYBOX = "/bin/busybox"
RDONLY, NOSUID, NODEV, NOEXEC, NOATIME = 1, 2, 4, 8, 1024
#: For everything: nothing on a disk or in firmware is a program or a device of ours.
DATA = NOSUID | NODEV | NOEXEC


def mount(source: str, directory: str, kind: str, *, flags: int = DATA, options: str = "") -> None:
    """Mount a file system (mount(2)).

    Args:
        source: the device, or whatever this kind calls it.
        directory: where to; made if it is not there.
        kind: of file system.
        flags: of mount(2).
        options: of this kind.

    Raises:
        OSError: the kernel does not.
    """
    os.makedirs(directory, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), directory.encode(), kind.encode())
    if libc.mount(*words, flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), directory)


def load_modules(listing: str) -> None:
    """Load kernel modules, those that are there already too: `insmod` then only says so.

    Args:
        listing: a file with their paths, in order.
    """
    with open(listing) as handle:
        for path in handle.read().split():
            os.waitpid(os.posix_spawn(_BUSYBOX, ["insmod", path], {}), 0)
