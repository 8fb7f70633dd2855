"""Child processes that die with this one: no handler of ours could end them after a SIGKILL."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
# Only Linux has this: elsewhere a process that is killed leaves its children behind.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dies_with_us() -> Callable[[], None]:
    """What `preexec_fn` of a `subprocess` call takes.

    The kernel means the *thread* that starts the child: it has to live as long as the child shall, as that
    of `lab.qemu.loop` does.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return before_exec
