"""Takes connections from the listening socket, also when there is no file descriptor left for them.

Without a descriptor, asyncio's own server tries a thousand times at once and writes a traceback for each.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import Callable
from time import monotonic

from phase.provider.background import Background
from phase.provider.health import Part, Problem
from phase.provider.limits import EXHAUSTED, refusal
from phase.provider.metrics import Metrics

_log = logging.getLogger(__name__)
#: Connections that are taken in one turn of the event loop.
_TURN = 128
#: Seconds of rest when even the reserved descriptor did not help.
PAUSE_SECONDS = 0.2
#: Seconds between two log lines about connections that were refused for want of a descriptor.
SAY_SECONDS = 1.0
#: Seconds for which such a refusal counts as a problem.
REMEMBER_SECONDS = 60.0
#: Descriptors for everything but connections and the files that they read.
OTHER_DESCRIPTORS = 48
#: Bytes of a request that are read before it is refused: unread bytes would turn the answer into a reset.
_READ = 1 << 16


def capacity() -> int:
    """Connections for which this process has descriptors.

    Each takes one, one more to wait until its reader takes more, and one for the file that it reads.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 20
    return max((soft - OTHER_DESCRIPTORS) // 3, 4)


class Acceptor:
    """Takes connections.

    Args:
        listener: the socket that listens; is closed at the end.
        factory: makes the protocol of a connection.
        background: runs the task that begins a connection.
        metrics: where to count.
    """

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[socket.socket], asyncio.Protocol],
        background: Background,
        metrics: Metrics,
    ) -> None:
        self._listener = listener
        self._factory = factory
        self._background = background
        self._metrics = metrics
        self._refused_at = -REMEMBER_SECONDS
        self._said_at = -SAY_SECONDS
        self._said = 0
        self._reason = ""
        self._reserve = -1
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; call it within the event loop."""
        self._listener.setblocking(False)
        self._take_reserve()
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no further connection, and close the socket."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
        self._free_reserve()

    def problems(self) -> list[Problem]:
        """One problem if connections were refused lately."""
        if monotonic() - self._refused_at >= REMEMBER_SECONDS:
            return []
        return [
            Problem(
                Part.DESCRIPTORS,
                f"{self._metrics.exhausted} connections were refused, lately too: {self._reason}",
            )
        ]

    def _accept(self) -> None:
        for _ in range(_TURN):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    # accept(2) also reports network errors of the new connection: try again later.
                    self._pause(error)
                    return
                if not self._refuse_one(error):
                    return
                continue
            self._background.once("a new connection", self._begin(connection))

    async def _begin(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._factory(connection), connection
            )
        except BaseException:
            connection.close()
            raise

    def _refuse_one(self, error: OSError) -> bool:
        """Use the reserved descriptor to tell one connection that there is no room for it."""
        self._free_reserve()
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            self._take_reserve()
            return False
        except OSError as again:
            self._take_reserve()
            self._note(again)
            self._pause(again)
            return False
        with contextlib.suppress(OSError), connection:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.recv(_READ)
            connection.send(refusal(503))
        self._metrics.exhausted += 1
        self._note(error)
        if self._take_reserve():
            return True
        self._pause(error)
        return False

    def _note(self, error: OSError) -> None:
        now = self._refused_at = monotonic()
        self._reason = error.strerror or type(error).__name__
        if now - self._said_at >= SAY_SECONDS:
            _log.error(
                "no room for new connections: %s; refused %d since this was said last; `ulimit -n` is %s",
                self._reason,
                self._metrics.exhausted - self._said,
                resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )
            self._said_at, self._said = now, self._metrics.exhausted

    def _pause(self, error: OSError) -> None:
        if self._timer is not None:
            return
        if error.errno not in EXHAUSTED and monotonic() - self._said_at >= SAY_SECONDS:
            self._said_at = monotonic()
            _log.error("a connection could not be taken: %s", error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.fileno())
        self._timer = loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._take_reserve()
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _take_reserve(self) -> bool:
        if self._reserve < 0:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return self._reserve >= 0

    def _free_reserve(self) -> None:
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
