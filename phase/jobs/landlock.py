"""Landlock, by which any process can give up files, TCP, and access to other processes (landlock(7)).

The filter of system calls forbids the same already. This protects if the filter has a gap, or is refused.
"""

import ctypes
import os
from collections.abc import Sequence

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_VERSION = 1
_PATH_BENEATH = 1
#: Rights below a directory that is granted: to read files and directories; and to change what is there: all
#: but programs, devices, sockets, pipes (landlock(7), from LANDLOCK_ACCESS_FS_EXECUTE on, a bit each).
READ, WRITE = 1 << 2 | 1 << 3, 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
#: The rights that each version can forbid: to files, to TCP ports, to abstract sockets and signals outside.
_RIGHTS = (
    (6, (1 << 16) - 1, 3, 3),
    (5, (1 << 16) - 1, 3, 0),
    (4, (1 << 15) - 1, 3, 0),
    (3, (1 << 15) - 1, 0, 0),
    (2, (1 << 14) - 1, 0, 0),
    (1, (1 << 13) - 1, 0, 0),
)


class _Beneath(ctypes.Structure):
    """landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def close(libc: ctypes.CDLL, but: Sequence[tuple[str, bool]] = ()) -> int:
    """Give up all rights that Landlock knows, for this thread and the threads that it starts.

    Args:
        libc: the C library. The process has given up the right to gain privileges.
        but: directories whose files may be read, and changed where the second value is true.

    Returns:
        The version whose rights are given up; 0 if the kernel does not have Landlock.
    """
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    for least, *rights in _RIGHTS:
        if version >= least:
            rules = (ctypes.c_uint64 * 3)(*rights)
            size = ctypes.c_size_t(8 if version < 4 else 16 if version < 6 else 24)
            ruleset = libc.syscall(_CREATE, rules, size, 0)
            if ruleset < 0:
                break
            refused = any([_allow(libc, ruleset, rights[0], *each) for each in but])
            refused = refused or libc.syscall(_RESTRICT, ruleset, 0)
            os.close(ruleset)
            return 0 if refused else least
    return 0


def _allow(libc: ctypes.CDLL, ruleset: int, known: int, path: str, writable: bool) -> bool:
    """Allow what is granted below a directory; whether the kernel refused to."""
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = _Beneath((READ | (WRITE if writable else 0)) & known, parent)
    refused: bool = libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) != 0
    os.close(parent)
    return refused
