"""The sources and sinks of a job, and the loop that carries its input and output.

Nothing is read ahead. Input is read when the module asks for it, and only as much. Output is read from the
worker when the earlier output has been written. So the caller's memory is constant, and a slow reader slows
the module down, while the module's clock runs on.
"""

import errno
import fcntl
import hashlib
import os
import select
import stat
import time
from typing import Protocol

import msgspec

from phase.jobs import wire

#: Bytes carried at once: the size of a pipe.
_CHUNK = 1 << 16
#: What is read ahead for a module that does not ask: the least that a pipe holds.
_PAGE = 4096
#: A pipe that polls writable takes this much without blocking.
_PIPE_BUF = select.PIPE_BUF
_MAX_DIAGNOSTICS = 16 * 1024
#: Milliseconds: the last output of a small job and its end come together.
GATHER_MS = 2.0


class Content(msgspec.Struct, frozen=True):
    """Some bytes, by their SHA-256 (hex) and length."""

    sha256: str
    length: int


class Source(Protocol):
    """The origin of a job's input."""

    def fileno(self) -> int | None:
        """Descriptor to wait for before reading; None if it never blocks."""

    def read(self, most: int) -> bytes:
        """Some bytes, at most that many; none at the end."""


class Sink(Protocol):
    """The destination of a job's output."""

    def fileno(self) -> int | None:
        """Descriptor to wait for before writing; None if it never blocks."""

    def write(self, data: memoryview) -> int:
        """Take some of these bytes, at least one; returns how many.

        Raises:
            OSError: it takes no more.
        """


class Collected:
    """A sink that keeps everything in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def fileno(self) -> None:
        """It never blocks."""

    def write(self, data: memoryview) -> int:
        """Keep all of it."""
        self.data += data
        return len(data)


class Descriptor:
    """A file, pipe, terminal or socket of this process, as source or sink. It is never closed here.

    Args:
        descriptor: an open one; its blocking mode is left alone, because others may share it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._step = _CHUNK if stat.S_ISREG(os.fstat(descriptor).st_mode) else _PIPE_BUF
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def read(self, most: int) -> bytes:
        """Some bytes, at most that many; none at the end."""
        return os.read(self._descriptor, most)

    def write(self, data: memoryview) -> int:
        """Write what fits without blocking."""
        count = os.write(self._descriptor, data[: self._step])
        while count < len(data) and self._poll.poll(0):
            try:
                count += os.write(self._descriptor, data[count : count + self._step])
            except OSError:
                break  # the bytes written before count; the next call meets the error again
        return count


class Told(Protocol):
    """Who takes output in another thread, and need not hear of each part of it."""

    #: Whether there is output that it has not heard of.
    untold: bool

    def tell(self) -> None:
        """Have it hear."""


class Streams(msgspec.Struct, frozen=True):
    """The input and outputs of a job.

    Args:
        stdin: read as the module asks; None for the job's own `stdin` bytes.
        stdout: None to keep the bytes in memory, for the execution.
        stderr: the same.
        stop: a descriptor that ends the job as soon as it can be read.
        told: hears of output within `GATHER_MS`, unless the job ends before that.
    """

    stdin: Source | None = None
    stdout: Sink | None = None
    stderr: Sink | None = None
    stop: int | None = None
    told: Told | None = None


class Counted:
    """Counts the hash and length of bytes that pass by."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._length = 0

    def add(self, data: bytes | memoryview) -> None:
        """Count some bytes."""
        self._hash.update(data)
        self._length += len(data)

    @property
    def length(self) -> int:
        """Bytes so far."""
        return self._length

    def content(self) -> Content:
        """The hash and length so far."""
        return Content(self._hash.hexdigest(), self._length)


class Inlet:
    """Carries input to the worker, as much as the module asks for."""

    def __init__(self, source: Source | None, pipe: int, limit: int) -> None:
        self._source = source
        self.pipe = pipe
        self._limit = limit
        self._asked = 0
        self._ahead = False
        self._pending = memoryview(b"")
        self.sent = Counted()
        self.over = False
        #: The error of the source, if it has one.
        self.broken: OSError | None = None
        if source is None:
            self._close()

    def want(self, read: int, most: int) -> None:
        """The module has read so many bytes, and asks for more."""
        if read >= self.sent.length and not self._pending:
            self._asked = min(most, _CHUNK)

    def ahead(self) -> None:
        """The module reads when it likes: from now on, keep a page ready for it."""
        if self.pipe >= 0 and not self._ahead:
            fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PAGE)
            self._ahead, self._asked = True, _PAGE

    def waits(self) -> tuple[int, int] | None:
        """Descriptor and events to wait for."""
        if self.pipe < 0:
            return None
        if self._pending:
            return self.pipe, select.POLLOUT
        if self._asked and self._source is not None:
            descriptor = self._source.fileno()
            return None if descriptor is None else (descriptor, select.POLLIN)
        return None

    def busy(self) -> bool:
        """Whether there is something to do without waiting."""
        return self._asked > 0 and self._source is not None and self._source.fileno() is None

    def step(self) -> None:
        """Read or write once."""
        if self.pipe < 0:
            return
        if self._pending:
            self._write()
        elif self._asked and self._source is not None:
            self._read(self._source)

    def _read(self, source: Source) -> None:
        left = self._limit - self.sent.length
        try:
            # Read one byte more than is left, to find out whether the input ends there.
            part = source.read(min(self._asked, left) or 1)
        except BlockingIOError:
            return
        except OSError as error:
            # The module's input is a pipe, which can end but not fail.
            self.broken, part = error, b""
        self._asked = _PAGE if self._ahead else 0
        if not part:
            self._close()
        elif left == 0:
            self.over = True
        else:
            self._pending = memoryview(part)
            self._write()

    def _write(self) -> None:
        try:
            count = os.write(self.pipe, self._pending)
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close()
            return
        self.sent.add(self._pending[:count])
        self._pending = self._pending[count:]

    def _close(self) -> None:
        self._pending = memoryview(b"")
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1


class Outlet:
    """Carries one of the worker's outputs to its sink."""

    def __init__(self, pipe: int, sink: Sink) -> None:
        self.pipe = pipe
        self._sink = sink
        self._poll = select.poll()
        if (descriptor := sink.fileno()) is not None:
            self._poll.register(descriptor, select.POLLOUT)
        self._pending = memoryview(b"")
        self.passed = Counted()
        self.read = 0
        #: The error of the sink, if it has one.
        self.broken: OSError | None = None

    @property
    def pending(self) -> bool:
        """Whether there are bytes that the sink has not taken yet."""
        return bool(self._pending)

    @property
    def open(self) -> bool:
        """Whether there are bytes to carry, or more may come."""
        return self.pipe >= 0 or bool(self._pending)

    def waits(self) -> tuple[int, int] | None:
        """Descriptor and events to wait for."""
        if self._pending:
            descriptor = self._sink.fileno()
            return None if descriptor is None else (descriptor, select.POLLOUT)
        return (self.pipe, select.POLLIN) if self.pipe >= 0 else None

    def busy(self) -> bool:
        """Whether there is something to do without waiting."""
        return bool(self._pending) and self._sink.fileno() is None

    def step(self, most: int) -> None:
        """Read or write once. At most this many of the bytes read are carried on."""
        if self._pending:
            self._write()
        elif self.pipe >= 0:
            part = os.read(self.pipe, _CHUNK)
            self.read += len(part)
            self._pending = memoryview(part)[: max(most, 0)]
            if not part:
                self._close()
            elif self._pending and self._ready():
                self._write()

    def _ready(self) -> bool:
        """Whether the sink takes bytes at once. To ask after each read saves half of the loop's turns."""
        return self._sink.fileno() is None or bool(self._poll.poll(0))

    def _write(self) -> None:
        try:
            count = self._sink.write(self._pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # The module's next write fails, as it does for any program.
            self.broken = error
            self._pending = memoryview(b"")
            self._close()
            return
        self.passed.add(self._pending[:count])
        self._pending = self._pending[count:]

    def _close(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1


class Messages:
    """The worker's messages, and its diagnostics when it breaks.

    Args:
        control: descriptor of the messages.
        diagnostics: descriptor of the diagnostics.
        keep: bytes that the compiled module may have; the worker was told the same.
        files: how many output files the job may have, and their bytes together.
    """

    def __init__(
        self, control: int, diagnostics: int, keep: int = 0, files: tuple[int, int] = (0, 0)
    ) -> None:
        self._control, self._diagnostics = control, diagnostics
        self._buffer = bytearray()
        self.printed = bytearray()
        self.running = False
        self.compile_bytes = 0
        self._keep, self._parts = keep, bytearray()
        #: The compiled module, once all of it has come.
        self.kept: bytes | None = None
        self._files, self._room = files
        #: The output files that have come, by their numbers.
        self.files: dict[int, bytearray] = {}
        self.wanted: tuple[int, int] | None = None
        self.ahead = False
        self.done: list[bytes] | None = None
        self.broken = False

    def waits(self) -> list[tuple[int, int]]:
        """Descriptors and events to wait for."""
        return [(number, select.POLLIN) for number in (self._control, self._diagnostics) if number >= 0]

    def step(self, ready: dict[int, int]) -> None:
        """Read the data that has arrived."""
        if self._diagnostics in ready:
            part = os.read(self._diagnostics, _CHUNK)
            self.printed += part
            del self.printed[:-_MAX_DIAGNOSTICS]
            if not part:
                self._diagnostics = -1
        if self._control in ready:
            part = os.read(self._control, wire.MAX_MESSAGE)
            self._buffer += part
            if not part:
                self._control = -1
            self._understand()

    def _take(self, part: bytes) -> None:
        if self.kept is not None or len(self._parts) + len(part) > self._keep:
            raise ValueError("more of the compiled module than was asked for")
        self._parts += part
        if not part:
            self.kept = bytes(self._parts)
            self._parts.clear()

    def _bring(self, number: int, part: bytes) -> None:
        self._room -= len(part)
        if self._room < 0 or not 0 <= number < self._files:
            raise ValueError("more output files than were asked for")
        self.files.setdefault(number, bytearray()).extend(part)

    def _understand(self) -> None:
        """Read messages. Their form is not trusted: a module may have taken over the worker."""
        try:
            while (fields := wire.receive(self._buffer)) is not None:
                match fields:
                    case [wire.COMPILE, size]:
                        self.compile_bytes = int(size)
                    case [wire.KEEP, part]:
                        self._take(part)
                    case [wire.RUNNING]:
                        self.running = True
                    case [wire.WANT, read, most]:
                        self.wanted = int(read), max(int(most), 1)
                    case [wire.AHEAD]:
                        self.ahead = True
                    case [wire.OUTPUT, number, part]:
                        self._bring(int(number), part)
                    case [wire.DONE, *result]:
                        self.done = result
                    case _:
                        raise ValueError("unknown message")
        except ValueError:
            self.broken, self._control = True, -1


class Pump:
    """Carries one job's request, input, output and messages until all is done or time is up.

    Args:
        request: the job for the worker, and the descriptor to write it to.
        inlet: the job's input.
        outlets: its stdout and stderr.
        messages: of the worker.
        output_bytes: limit for both outputs together.
        stop: a descriptor that ends all as soon as it can be read.
        told: as in `Streams`.
    """

    def __init__(
        self,
        request: tuple[bytes, int],
        inlet: Inlet,
        outlets: tuple[Outlet, Outlet],
        messages: Messages,
        output_bytes: int,
        stop: int | None = None,
        told: Told | None = None,
    ) -> None:
        self._unsent, self.request = memoryview(request[0]), request[1]
        self.inlet, self.outlets, self.messages = inlet, outlets, messages
        self._output_bytes, self._stop, self._told = output_bytes, stop, told
        self.late = self.over = self.stopped = False

    def run(self, deadline: float) -> None:
        """Carry until all is done, or until a time of the monotonic clock.

        All is done once the worker has said its last word, and what it had written before is carried: the
        kernel takes as long to clear the worker away as a small job runs.
        """
        while self.messages.waits() or any(outlet.open for outlet in self.outlets):
            left = deadline - time.monotonic()
            if left <= 0:
                self.late = True
                return
            last = self.messages.done is not None and not any(outlet.pending for outlet in self.outlets)
            ready = self._wait(0 if last else left)
            if last and not ready:
                return
            if self._stop in ready:
                self.stopped = True
                return
            self._send(ready)
            self.messages.step(ready)
            if self.messages.ahead:
                self.inlet.ahead()
            if self.messages.wanted:
                self.inlet.want(*self.messages.wanted)
                self.messages.wanted = None
            self._carry(ready)
            if self.messages.broken or self.inlet.over or self.over:
                return

    def _wait(self, seconds: float) -> dict[int, int]:
        waits = self.messages.waits()
        waits += [found for found in (self.inlet.waits(), *(o.waits() for o in self.outlets)) if found]
        if self.request >= 0:
            waits.append((self.request, select.POLLOUT))
        if self._stop is not None:
            waits.append((self._stop, select.POLLIN))
        events: dict[int, int] = {}
        for descriptor, wanted in waits:
            events[descriptor] = events.get(descriptor, 0) | wanted
        poll = select.poll()
        for descriptor, wanted in events.items():
            poll.register(descriptor, wanted)
        if self.inlet.busy() or any(outlet.busy() for outlet in self.outlets):
            return dict(poll.poll(0))
        if seconds and self._told is not None and self._told.untold:
            if ready := poll.poll(min(GATHER_MS, seconds * 1000)):
                return dict(ready)
            self._told.tell()
        return dict(poll.poll(seconds * 1000))

    def _send(self, ready: dict[int, int]) -> None:
        if self.request < 0 or self.request not in ready:
            return
        try:
            self._unsent = self._unsent[os.write(self.request, self._unsent) :]
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            self._unsent = memoryview(b"")
        if not self._unsent:
            os.close(self.request)
            self.request = -1

    def _carry(self, ready: dict[int, int]) -> None:
        waits = self.inlet.waits()
        if self.inlet.busy() or (waits and waits[0] in ready):
            self.inlet.step()
        for outlet in self.outlets:
            waits = outlet.waits()
            if outlet.busy() or (waits and waits[0] in ready):
                outlet.step(self._output_bytes - sum(other.read for other in self.outlets))
        # The worker counts too, but a module may have taken it over.
        if sum(outlet.read for outlet in self.outlets) > self._output_bytes:
            self.over = True
