"""Landlock, by which any process can give up files, TCP, and access to other processes (landlock(7)).

The filter of system calls forbids the same already. This protects if the filter has a gap, or is refused.
"""

import ctypes
import os

_CREATE, _RESTRICT = 444, 446  # the same on every architecture
_VERSION = 1
#: The rights that each version can forbid: to files, to TCP ports, to abstract sockets and signals outside.
_RIGHTS = (
    (6, (1 << 16) - 1, 3, 3),
    (5, (1 << 16) - 1, 3, 0),
    (4, (1 << 15) - 1, 3, 0),
    (3, (1 << 15) - 1, 0, 0),
    (2, (1 << 14) - 1, 0, 0),
    (1, (1 << 13) - 1, 0, 0),
)


def close(libc: ctypes.CDLL) -> int:
    """Give up all rights that Landlock knows, for this thread and the threads that it starts.

    Args:
        libc: the C library. The process has given up the right to gain privileges.

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
            refused = libc.syscall(_RESTRICT, ruleset, 0)
            os.close(ruleset)
            return 0 if refused else least
    return 0
