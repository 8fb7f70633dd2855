"""Runs a job in a worker process and watches it: the parent's side.

Imports stay few (no subprocess, no asyncio, no engine): the worker is started first, and the parent
reads and hashes the job while the worker loads its engine. Structs are used, not dataclasses, which import
half of the standard library.
"""

import hashlib
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from phase.errors import printable
from phase.jobs import location, process, wire
from phase.jobs.errors import CageError, EngineError, JobRefusedError
from phase.jobs.flow import Collected, Content, Inlet, Messages, Outlet, Pump, Streams
from phase.jobs.grant import Grant
from phase.jobs.job import Execution as Execution
from phase.jobs.job import Job as Job
from phase.jobs.job import grant_of as grant_of
from phase.jobs.job import request
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.status import MAX_CODE, Exited, Killed, LimitHit, Rejected, Status, Trapped

if TYPE_CHECKING:
    from phase.jobs.cache import Cache
    from phase.jobs.cgroup import Group

#: Seconds a worker may take to load its engine; an emulated board needs most of ten.
STARTUP_SECONDS = 120.0
#: Seconds past the wall limit until the worker is killed: its own clock ends it at the limit. The kill is
#: for a worker whose clock does not.
GRACE_SECONDS = 0.5
_MAX_DIAGNOSTICS = 16 * 1024
_HITS: dict[str, LimitHit] = {
    hit.limit: hit for hit in (LimitHit("fuel"), LimitHit("wall"), LimitHit("memory"), LimitHit("output"))
}
#: The end of a job whose requester did not want it any more.
STOPPED = Killed(signal.SIGTERM, "cancelled by its requester")
#: Messages of the engine when it aborts for want of memory. It has no other sign of that.
_NO_MEMORY = (b"memory allocation of", b"Cannot allocate memory", b"MemoryError", b"out of memory")
#: Signals that end a worker before it can report why.
_SIGNALS: dict[int, str] = {
    signal.SIGSYS: "it made a system call that no job needs; the module may have broken out of the engine",
    signal.SIGKILL: "another process ended it, or the kernel did because memory ran out",
}
#: Of the worker's descriptors, the two that it reads from: the module's input and the job.
_READ = (0, 5)
#: sys.path is given as an argument: -I and -S leave only the standard library.
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop()); from phase.jobs.worker import main; main()"


#: How to react if the kernel refuses a part of a worker's cage.
Policy = Literal["whole", "best"]


class Kept:
    """A module, and what a cache has of it.

    Args:
        cache: None for none.
        module: the module.
    """

    def __init__(self, cache: "Cache | None", module: bytes) -> None:
        self._cache = cache
        self.sha256 = hashlib.sha256(module).hexdigest()
        #: The compiled module; empty without one. Bytes of it to keep, if it is compiled; 0 for none.
        self.held, self.keep = b"", 0
        if cache is not None:
            from phase.jobs import cache as caches

            self._name, self.keep = caches.name(self.sha256), caches.entry_bytes(len(module))
            self.held = cache.get(self._name, self.keep) or b""

    def put(self, kept: bytes | None) -> None:
        """Keep the compiled module, if it has come."""
        if kept and self._cache is not None:
            self._cache.put(self._name, kept)


class Worker:
    """A worker process with its engine loading or loaded; runs one job.

    Start one before the job is known, and it is warm when the job comes. Use it as a context
    manager, which kills the worker at its end.

    Args:
        cage: `whole` refuses a job if the kernel refuses a part of the worker's cage; `best` runs it, and
            lists the missing parts in the execution.
        grant: the files of its job (`grant_of`); none when left out.
        start: starts its process; a new one with an engine of its own when left out.
        patience: seconds until it must be ready.

    Raises:
        EngineError: there is no engine to load, or it cannot run on this processor.
    """

    def __init__(
        self,
        cage: Policy = "best",
        grant: Grant | None = None,
        start: process.Start | None = None,
        patience: float = STARTUP_SECONDS,
    ) -> None:
        self._policy, self._patience, self._grant = cage, patience, grant or Grant()
        made = process.pipes(6)
        # The worker reads from the first and the last, and writes to the others.
        theirs = [pipe[0 if number in _READ else 1] for number, pipe in enumerate(made)]
        ours = [pipe[1 if number in _READ else 0] for number, pipe in enumerate(made)]
        try:
            self._process = (start or _spawn)(theirs, self._grant)
        except BaseException as error:
            for end in ours:
                os.close(end)
            if isinstance(error, OSError):
                raise EngineError(f"cannot start a worker process: {error.strerror}") from error
            raise
        finally:
            for end in theirs:
                os.close(end)
        self._ends = ours
        for number in _READ:
            os.set_blocking(ours[number], False)
        self._group, self._ungrouped = self._grouped()
        self._cage: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether its process has not ended: while it lives, it has the other end of its messages."""
        poll = select.poll()
        poll.register(self._ends[3], 0)
        return not poll.poll(0)

    def close(self) -> int:
        """Kill the worker if it still lives, and free its resources. May be called twice.

        Returns:
            Its exit code, negative for the signal that ended it.
        """
        self._free()
        return self._process.end()

    def _free(self) -> None:
        for end in self._ends:
            if end >= 0:
                os.close(end)
        self._ends = []
        if self._group is not None:
            self._group.close()
            self._group = None

    def run(self, job: Job, streams: Streams | None = None, cache: "Cache | None" = None) -> Execution:
        """Run the one job of this worker, and end the worker.

        Args:
            job: the job.
            streams: its input and outputs. Without a stream, the input is the job's `stdin`, and an output
                is kept in memory.
            cache: has the module compiled, or will have; it is compiled for this job alone when left out.

        Raises:
            JobRefusedError: module, input, arguments or environment are beyond the limits.
            EngineError: the worker broke before it had the job.
        """
        if grant_of(job) != self._grant:
            raise JobRefusedError("the worker was not started for the files of this job")
        streams = streams or Streams()
        module = Kept(cache, job.module)
        given = request(job, module.held, module.keep, streamed=streams.stdin is not None)
        cage, missing = self.wait_ready()
        if self._group is not None:
            self._group.limit(memory_bytes=job.limits.memory_bytes, compile_bytes=job.limits.compile_bytes)
        sinks = [sink or Collected() for sink in (streams.stdout, streams.stderr)]
        started, begun = time.time(), time.monotonic()
        stdin, stdout, diagnostics, control, stderr, told = self._ends
        self._ends = []
        inlet = Inlet(streams.stdin, stdin, job.limits.stdin_bytes)
        outlets = Outlet(stdout, sinks[0]), Outlet(stderr, sinks[1])
        seen = Messages(control, diagnostics, module.keep, (len(job.outputs), job.limits.output_bytes))
        pump = Pump((given, told), inlet, outlets, seen, job.limits.output_bytes, streams.stop, streams.told)
        try:
            pump.run(begun + job.limits.wall_seconds + GRACE_SECONDS)
        finally:
            self._ends = [inlet.pipe, outlets[0].pipe, diagnostics, control, outlets[1].pipe, pump.request]
            signalled, starved = self._finish(told=seen.done is not None)
        wall_seconds = time.monotonic() - begun
        module.put(seen.kept)
        status, fuel_used, memory_bytes = _ending(pump, signalled, job.limits)
        if starved and isinstance(status, Killed):
            status = LimitHit("memory")
        broken = {"stdin": inlet.broken, "stdout": outlets[0].broken, "stderr": outlets[1].broken}
        return Execution(
            status=status,
            stdout=bytes(sinks[0].data) if isinstance(sinks[0], Collected) else b"",
            stderr=bytes(sinks[1].data) if isinstance(sinks[1], Collected) else b"",
            fuel_used=fuel_used,
            memory_bytes=memory_bytes,
            started=started,
            wall_seconds=wall_seconds,
            module_sha256=module.sha256,
            input=inlet.sent.content() if streams.stdin else _content(job.stdin),
            output=outlets[0].passed.content(),
            files={job.outputs[number]: bytes(data) for number, data in sorted(seen.files.items())},
            errors=outlets[1].passed.content(),
            cage=cage,
            missing=missing,
            undelivered={name: error for name, error in broken.items() if error},
        )

    def wait_ready(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Wait until the engine is loaded and the cage closed.

        Returns:
            The layers of the cage; and the missing protections, a sentence each, usually empty.

        Raises:
            EngineError: the engine was not loaded.
            CageError: a protection is missing, and the policy demands all of them.
        """
        if self._cage is None:
            layers, missing = self._read_ready()
            layers += ("cgroup",) if self._group else ()
            self._cage = layers, missing + self._ungrouped
        if self._policy == "whole" and self._cage[1]:
            raise CageError(
                f"the worker's cage is not whole: {'; '.join(self._cage[1])}",
                hint="Allow it in this container or kernel, or run the job with --cage best",
            )
        return self._cage

    def _read_ready(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        _, _, diagnostics, control, _, _ = self._ends
        buffer = bytearray()
        poll = select.poll()
        poll.register(control, select.POLLIN)
        deadline = time.monotonic() + self._patience
        while True:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                # To ask for its number is to ask the process that forks workers whether it lives at all.
                raise EngineError(f"worker process {self.pid} has loaded no engine in {self._patience:g} s")
            part = os.read(control, wire.MAX_MESSAGE)
            buffer += part
            if not part:
                break
            match wire.receive(buffer):
                case [wire.READY, layers, missing]:
                    return _texts(layers), _texts(missing)
        poll = select.poll()
        poll.register(diagnostics, select.POLLIN)
        said = os.read(diagnostics, _MAX_DIAGNOSTICS) if poll.poll(0) else b""
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise EngineError(
            f"worker process {self.pid} did not load its engine: {last or 'no reason given'}",
            hint="Try `python -c 'import wasmtime'` in the same environment",
        )

    def _finish(self, *, told: bool) -> tuple[int, bool]:
        """End the worker; returns the signal that ended it, and whether its group's memory was used up."""
        if told and self._group is None:
            self._process.leave()  # how it ends does not matter any more
            self._free()
            return 0, False
        code = self._process.end()
        starved = self._group is not None and self._group.starved()
        self._free()
        return -code if code < 0 else 0, starved

    def _grouped(self) -> tuple["Group | None", tuple[str, ...]]:
        """Its control group, if one is asked for, or why it could not be made."""
        within = os.environ.get("PHASE_CGROUP")
        if not within:
            return None, ()
        from phase.jobs.cgroup import Group

        try:
            return Group(within, self.pid), ()
        except OSError as error:
            return None, (f"it could not get a control group in {printable(within)}: {error.strerror}",)


def _spawn(descriptors: Sequence[int], grant: Grant) -> process.Process:
    location.check_processor()
    return process.spawn(descriptors, _BOOTSTRAP, location.engine_library(), *grant.words())


def execute(job: Job, worker: Worker | None = None, streams: Streams | None = None) -> Execution:
    """Run a job to its end.

    Args:
        job: the job.
        worker: a warm worker; a new one when left out. It ends with the job.
        streams: as in `Worker.run`; everything is kept in memory when left out.

    Raises:
        JobRefusedError: module, input, arguments or environment are beyond the limits.
        EngineError: there is no engine, or the worker broke before it had the job.
    """
    with worker or Worker(grant=grant_of(job)) as used:
        return used.run(job, streams)


def _ending(pump: Pump, signalled: int, limits: Limits) -> tuple[Status, int | None, int | None]:
    """How the job ended, the fuel it burnt and its peak of memory, as far as they are known."""
    said = _result(pump.messages.done or [])
    if pump.stopped:
        return STOPPED, None, None
    if pump.over:
        return LimitHit("output"), None, None
    if pump.inlet.over:
        return LimitHit("stdin"), None, None
    if pump.late and (said is None or any(outlet.open for outlet in pump.outlets)):
        # Either it did not end in time, or what it printed was not taken in time.
        return LimitHit("wall"), *(said[1:] if said else (None, None))
    if said is not None:
        return said
    printed = bytes(pump.messages.printed)
    if signalled == signal.SIGXCPU:
        return LimitHit("wall"), None, None
    if any(words in printed for words in _NO_MEMORY):
        if pump.messages.running:
            return LimitHit("memory"), None, None
        return Rejected(wire.too_large(pump.messages.compile_bytes or limits.compile_bytes)), 0, 0
    return Killed(signalled, _reason(printed) or _SIGNALS.get(signalled, "")), None, None


def _reason(printed: bytes) -> str:
    """What a broken worker said: of Python's traceback the last line, which is the error."""
    text = printed.decode("utf-8", "replace").strip()
    if "Traceback (most recent call last)" in text:
        text = text.rpartition("\n")[2]
    return _printable(text[-500:])


def _result(fields: list[bytes]) -> tuple[Status, int | None, int | None] | None:
    """Read the worker's last words; None if they are not complete. Never trusts their form."""
    try:
        kind, detail, burnt, peak = (part.decode() for part in fields)
        status: Status
        if kind == "exited" and 0 <= int(detail) <= MAX_CODE:
            status = Exited(int(detail))
        elif kind == "trapped":
            status = Trapped(_printable(detail))
        elif kind == "rejected":
            status = Rejected(_printable(detail))
        elif kind == "limit" and (hit := _HITS.get(detail)):
            status = hit
        else:
            return None
        return status, _number(burnt), _number(peak)
    except ValueError:
        return None


def _number(text: str) -> int | None:
    return min(max(int(text), 0), MAX_INTEGER) if text else None


def _texts(frame: bytes) -> tuple[str, ...]:
    return tuple(_printable(text.decode("utf-8", "replace")) for text in wire.unpack(frame))


def _content(data: bytes) -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data))


def _printable(text: str) -> str:
    """Engine messages quote names from the module; those must not steer anyone's terminal."""
    return printable(text[:500])
