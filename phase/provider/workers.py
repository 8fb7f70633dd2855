"""More than one process behind one listening socket.

The kernel gives each connection to one of them. What they count, `together` adds up.
"""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from phase.provider.errors import ProviderError

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


def listen(bind: str, port: int, *, backlog: int = 1024) -> socket.socket:
    """Open the socket that all processes accept from.

    Args:
        bind: address; one with a colon is IPv6.
        port: 0 for any.
        backlog: connections that may wait to be accepted.

    Raises:
        ProviderError: it cannot be opened.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bind, port))
        listener.listen(backlog)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ProviderError(
            f"cannot listen on {bind} port {port}: {getattr(error, 'strerror', None) or error}",
            hint="Is another provider running? Choose another --port.",
        ) from error
    return listener


def run(count: int, work: Callable[[int, Callable[[], None]], None]) -> None:
    """Do the work in so many processes; the first of them is this one.

    Call it before any thread or event loop has started. When this process ends its work, or says that it
    is about to, the others are told to (SIGTERM); then they are waited for. When another ends before, this
    one is told to: half a service is worse than one that is started anew. None outlives this one, however
    it ends.

    Args:
        count: processes.
        work: ends on SIGTERM. Gets which process this is, 0 for the first, and what it calls when it
            begins to end, so that all of them finish together what they have begun.
    """
    children: set[int] = set()
    ending = False

    def ended(number: int, frame: object) -> None:
        for child in list(children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG)[0] == child:
                    children.discard(child)
                    if not ending:
                        _log.error("worker process %d has ended; stopping", child)
                        os.kill(os.getpid(), signal.SIGTERM)

    def end_others() -> None:
        nonlocal ending
        ending = True
        for child in list(children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    # The work has its own way to end, but not from its first moment on.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        for number in range(1, count):
            children.add(_fork(number, work))
        if children:
            signal.signal(signal.SIGCHLD, ended)
        work(0, end_others)
    finally:
        if children:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_others()
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)


def _fork(number: int, work: Callable[[int, Callable[[], None]], None]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _end_with(parent)
        work(number, lambda: None)
        code = 0
    except SystemExit:
        code = 0  # told to end before the work had begun
    except BaseException:
        _log.exception("a worker process failed")
    finally:
        os._exit(code)


def _end_with(parent: int) -> None:
    """Be told to end (SIGTERM) also when the parent is killed; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(0)
