"""Sends records on one socket: not twice within a second, and after a pause in which others may answer."""

import asyncio
import random
from collections.abc import Callable, Sequence

from phase.discovery.mdns import wire
from phase.discovery.mdns.sockets import Socket
from phase.discovery.mdns.wire import Name, Record

#: Seconds between two multicasts of a record, and to wait with an answer that others may give, too (RFC
#: 6762, section 6).
AGAIN_SECONDS, WAIT_SECONDS = 1.0, (0.02, 0.12)
_Key = tuple[Name, int, bytes]


class Speaker:
    """Sends on one socket, in a running event loop.

    Args:
        socket: to send on.
        changed: called when `problem` has changed.
    """

    def __init__(self, socket: Socket, changed: Callable[[], None] = lambda: None) -> None:
        self.socket = socket
        self._changed = changed
        #: Why the last packet could not be sent; empty if it could.
        self.problem = ""
        self._last: dict[_Key, float] = {}
        self._pending: dict[_Key, Record] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def say(self, answers: Sequence[Record], additionals: Sequence[Record] = ()) -> None:
        """Multicast records now."""
        loop = asyncio.get_running_loop()
        if len(self._last) > 1024:
            self._last.clear()
        for record in (*answers, *additionals):
            self._last[record.key] = loop.time()
        for packet in wire.responses(answers, additionals):
            self.send(packet)

    def send(self, packet: bytes) -> None:
        """Multicast a packet; an error is kept in `problem`."""
        before = self.problem
        try:
            self.socket.multicast(packet)
            self.problem = ""
        except OSError as error:
            self.problem = f"nothing can be sent: {error.strerror or error}"
        if self.problem != before:
            self._changed()

    def answer(self, answers: Sequence[Record], additionals: Sequence[Record], *, alone: bool) -> None:
        """Multicast an answer soon.

        Args:
            answers: records that were asked for.
            additionals: further records.
            alone: no other machine can answer, so there is no need to wait.
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
        """Drop the answers that were to be sent soon."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._pending.clear()

    def close(self) -> None:
        """End it."""
        self.hush()
        self.socket.close()
