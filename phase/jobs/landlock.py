"""Landlock: the kernel's way for any process to give up files, TCP, and the reach to others (landlock(7)).

The filter of system calls leaves nothing to forbid here. This holds where that has a gap, or is refused.
"""

import ctypes
import os

_CREATE, _RESTRICT = 444, 446  # the same on every architecture
_VERSION = 1
#: What each version can forbid: rights to files, to TCP ports, to abstract sockets and signals outside.
_RIGHTS = (
    (6, (1 << 16) - 1, 3, 3),
    (5, (1 << 16) - 1, 3, 0),
    (4, (1 << 15) - 1, 3, 0),
    (3, (1 << 15) - 1, 0, 0),
    (2, (1 << 14) - 1, 0, 0),
    (1, (1 << 13) - 1, 0, 0),
)


def close(libc: ctypes.CDLL) -> int:
    """Forbid this thread, and the threads that it starts, all that can be forbidden.

    Args:
        libc: the C library. The process has given up the right to gain privileges.

    Returns:
        The version of what the kernel forbids now; 0 where it has no Landlock.
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
