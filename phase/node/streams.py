"""Input and output of a job between the event loop and the thread that carries them to the worker.

Each side is bounded: a client that does not read stops its own job, whose clock runs on. An eventfd takes
the place of a pipe: it tells the thread when there is something to do, and the bytes need not be copied
through the kernel.
"""

import asyncio
import os
import threading
from collections import deque
from typing import Literal

#: Bytes of input that wait for the module, and of output that wait for the client.
HELD_BYTES = 256 << 10
#: Bytes of output that the client is told of at once; of less, a moment later, with what follows.
TOLD_BYTES = 16 << 10
#: The highest value of an eventfd: it is not writable then. Source: eventfd(2).
_FULL = (1 << 64) - 2

Output = tuple[Literal["stdout", "stderr"], bytes]


class Feed:
    """A job's input: the event loop gives, the job's thread reads. A source for `phase.jobs.flow`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = bytearray()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Readable once there are bytes, or none will come."""
        return self._ready

    def read(self, most: int) -> bytes:
        """Some bytes; none at the end. In the thread of the job."""
        with self._lock:
            data = bytes(self._held[:most])
            del self._held[:most]
            if not self._held and not self._ended:
                os.eventfd_read(self._ready)
            if not data and not self._ended:
                raise BlockingIOError
        self._loop.call_soon_threadsafe(self._room.set)
        return data

    async def give(self, data: bytes) -> None:
        """Give some input; waits while too much is held. In the event loop."""
        while len(self._held) >= HELD_BYTES and not self._ended:
            self._room.clear()
            await self._room.wait()
        with self._lock:
            if data and not self._ended:
                if not self._held:
                    os.eventfd_write(self._ready, 1)
                self._held += data

    def end(self) -> None:
        """No more comes. In the event loop; may be called twice."""
        with self._lock:
            if not self._ended and not self._held:
                os.eventfd_write(self._ready, 1)
            self._ended = True
        self._room.set()

    def close(self) -> None:
        """Free it, once the job has ended."""
        self.end()
        os.close(self._ready)


class Taps:
    """A job's two outputs: its thread writes, the event loop takes them in their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: deque[Output] = deque()
        self._bytes = 0
        self._left = False
        self._ended = False
        #: Whether the event loop is still to hear of what is held: see `phase.jobs.flow.Told`.
        self.untold = False
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._room = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.stdout, self.stderr = _Tap(self, "stdout"), _Tap(self, "stderr")

    def fileno(self) -> int:
        """Writable while there is room."""
        return self._room

    def add(self, name: Literal["stdout", "stderr"], data: memoryview) -> int:
        """Take output. In the thread of the job."""
        with self._lock:
            if self._left:
                raise BrokenPipeError
            if self._bytes >= HELD_BYTES:
                raise BlockingIOError
            self._held.append((name, bytes(data)))
            self._bytes += len(data)
            if self._bytes >= HELD_BYTES:
                os.eventfd_write(self._room, _FULL)
            self.untold = True
        if self._bytes >= TOLD_BYTES:
            self.tell()
        return len(data)

    def tell(self) -> None:
        """Tell the event loop that there is output. In the thread of the job."""
        self.untold = False
        self._loop.call_soon_threadsafe(self._some.set)

    @property
    def ready(self) -> bool:
        """Whether `take` has something to tell at once."""
        return bool(self._held) or self._ended

    async def take(self) -> Output | None:
        """The next output; None after the last. In the event loop."""
        while True:
            with self._lock:
                if self._held:
                    name, data = self._held.popleft()
                    full = self._bytes >= HELD_BYTES
                    self._bytes -= len(data)
                    if full and self._bytes < HELD_BYTES:
                        self._make_room()
                    return name, data
                if self._ended:
                    return None
                self._some.clear()
            await self._some.wait()

    def leave(self) -> None:
        """The client takes nothing more: the module's next write fails. In the event loop."""
        with self._lock:
            full = self._bytes >= HELD_BYTES
            self._left = True
            self._held.clear()
            self._bytes = 0
            if full:
                self._make_room()

    def _make_room(self) -> None:
        # Once the job has ended nobody waits for room, and the number may be another file's by now.
        if self._room >= 0:
            os.eventfd_read(self._room)

    def end(self) -> None:
        """The job has ended. In the event loop."""
        self._ended = True
        self._some.set()

    def close(self) -> None:
        """Free it, once the job has ended. What is held can still be taken."""
        self.end()
        with self._lock:
            os.close(self._room)
            self._room = -1


class _Tap:
    """One of the outputs, a sink as `phase.jobs.flow` wants it."""

    def __init__(self, taps: Taps, name: Literal["stdout", "stderr"]) -> None:
        self._taps, self._name = taps, name

    def fileno(self) -> int:
        """Writable while there is room."""
        return self._taps.fileno()

    def write(self, data: memoryview) -> int:
        """Take all of it."""
        return self._taps.add(self._name, data)
