"""More than one process behind one listening socket.

The kernel gives each connection to one of them. They share nothing else: each counts for itself.
"""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

from phase.provider.errors import ProviderError

_log = logging.getLogger(__name__)


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


def run(count: int, work: Callable[[bool, Callable[[], None]], None]) -> None:
    """Do the work in so many processes; the first of them is this one.

    Call it before any thread or event loop has started. When this process ends its work, or says that it
    is about to, the others are told to (SIGTERM); then they are waited for. When another ends before, this
    one is told to: half a service is worse than one that is started anew.

    Args:
        count: processes.
        work: ends on SIGTERM. Gets whether this is the first process, and what it calls when it begins
            to end, so that all of them finish together what they have begun.
    """
    children: set[int] = set()
    for _ in range(count - 1):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(False, lambda: None)
                code = 0
            except BaseException:
                _log.exception("a worker process failed")
            finally:
                os._exit(code)
        children.add(child)
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

    if children:
        signal.signal(signal.SIGCHLD, ended)
    try:
        work(True, end_others)
    finally:
        if children:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_others()
        for child in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
