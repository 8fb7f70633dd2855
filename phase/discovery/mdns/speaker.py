"""Says things on one socket: not twice within a second, and after a moment in which others may be heard."""

import asyncio
import random
from collections.abc import Callable, Sequence

from phase.discovery.mdns import wire
from phase.discovery.mdns.sockets import Socket
from phase.discovery.mdns.wire import Name, Record

#: Seconds between two times that a record is said to everybody, and to wait with an answer that others may
#: give, too (RFC 6762, section 6).
AGAIN_SECONDS, WAIT_SECONDS = 1.0, (0.02, 0.12)
_Key = tuple[Name, int, bytes]


class Speaker:
    """Speaks on one socket of a running event loop.

    Args:
        socket: to speak on.
        changed: called when `problem` has changed.
    """

    def __init__(self, socket: Socket, changed: Callable[[], None] = lambda: None) -> None:
        self.socket = socket
        self._changed = changed
        #: Why the last thing could not be said; empty where it could.
        self.problem = ""
        self._last: dict[_Key, float] = {}
        self._pending: dict[_Key, Record] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def say(self, answers: Sequence[Record], additionals: Sequence[Record] = ()) -> None:
        """Say it to everybody, now."""
        loop = asyncio.get_running_loop()
        if len(self._last) > 1024:
            self._last.clear()
        for record in (*answers, *additionals):
            self._last[record.key] = loop.time()
        for packet in wire.responses(answers, additionals):
            self.send(packet)

    def send(self, packet: bytes) -> None:
        """Send a packet to everybody; trouble is kept in `problem`."""
        before = self.problem
        try:
            self.socket.multicast(packet)
            self.problem = ""
        except OSError as error:
            self.problem = f"nothing can be sent: {error.strerror or error}"
        if self.problem != before:
            self._changed()

    def answer(self, answers: Sequence[Record], additionals: Sequence[Record], *, alone: bool) -> None:
        """Say it to everybody soon.

        Args:
            answers: what was asked for.
            additionals: what goes with it.
            alone: whether nobody else can answer, so that there is nothing to wait for.
        """
        loop = asyncio.get_running_loop()
        new = [record for record in answers if record.key not in self._pending]
        if not new:
            return
        due = loop.time() + (0.0 if alone else random.uniform(*WAIT_SECONDS))  # noqa: S311
        due = max([due, *(self._last.get(record.key, -1e9) + AGAIN_SECONDS for record in new)])
        for record in new:
            self._pending[record.key] = record

        def speak() -> None:
            self._timers.discard(timer)
            for record in new:
                self._pending.pop(record.key, None)
            self.say(new, additionals)

        timer = loop.call_at(due, speak)
        self._timers.add(timer)

    def hush(self) -> None:
        """Say nothing of what was to be said soon."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._pending.clear()

    def close(self) -> None:
        """End it."""
        self.hush()
        self.socket.close()
