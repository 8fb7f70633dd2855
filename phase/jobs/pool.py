"""Warm workers for a program that runs many jobs: the node.

A worker of its own needs tens of milliseconds to load the engine. A pool has one process that has loaded
it, the zygote (`phase.jobs.zygote`), and lets it fork a worker ahead of each job. Each job still has a
process of its own, whose cage is closed before it reads the job.

The zygote is a program of its own, started with an empty environment, so it does not matter which threads
the caller has. It ends when the pool's socket is closed: the caller may end in any way, with SIGKILL too.
"""

import array
import contextlib
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from phase.jobs import location, process, wire
from phase.jobs.cache import Cache
from phase.jobs.errors import CageError, EngineError, SilentError
from phase.jobs.flow import Streams
from phase.jobs.grant import Grant
from phase.jobs.runner import Execution, Job, Policy, Worker, grant_of

#: Seconds that a zygote may take to load its engine, as any worker, and to fork a worker.
_STARTUP_SECONDS, _FORK_SECONDS = 120.0, 10.0
#: Workers that may break before they have the job, for one job.
_TRIES = 4
_SIZE = 4
_MAX_DIAGNOSTICS = 16 * 1024
#: As in `phase.jobs.runner`.
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop()); from phase.jobs.zygote import main; main()"

#: What became of a process that did not do what it should.
Event = Literal["worker replaced", "zygote restarted"]


class _Forked:
    """A child of the zygote.

    Args:
        leash: this process's end of the socket by which the zygote tells of it.
    """

    def __init__(self, leash: socket.socket) -> None:
        self._leash = leash
        self._pid: int | None = None
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Its number.

        Raises:
            SilentError: the zygote does not answer, or is gone.
            EngineError: the zygote could not fork it.
        """
        if self._pid is None:
            try:
                number = self._told(_FORK_SECONDS)
            except TimeoutError:
                raise SilentError(
                    f"the pool's process has forked no worker in {_FORK_SECONDS:g} s"
                ) from None
            if number is None:
                raise EngineError("the pool's process has ended, or has no descriptors left for a worker")
            if number <= 0:
                raise EngineError(f"the pool cannot fork a worker process: {os.strerror(-number)}")
            self._pid = number
        return self._pid

    def end(self) -> int:
        """Kill it if it still lives; returns its exit code, negative for a signal."""
        if self._code is not None:
            return self._code
        with contextlib.suppress(OSError):  # it has ended, and the zygote has told how
            self._leash.send(b"k")
        raw = None
        with contextlib.suppress(TimeoutError):
            if self._pid is None:
                self._pid = self._told(_FORK_SECONDS) or -1
            if self._pid > 0:
                raw = self._told(_FORK_SECONDS)
        if raw is None:
            raw = signal.SIGKILL.value  # its zygote has left, and that was its end, too
        self._code = os.waitstatus_to_exitcode(raw)
        self._leash.close()
        return self._code

    def leave(self) -> None:
        """Let the zygote end it."""
        if self._code is None:
            self._code = 0
            self._leash.close()

    def _told(self, seconds: float) -> int | None:
        """The next number from the zygote; None if it never can come.

        Raises:
            TimeoutError: it does not come in that time.
        """
        self._leash.settimeout(seconds)
        try:
            data = self._leash.recv(_SIZE)
        except TimeoutError:
            raise
        except OSError:
            return None
        return int.from_bytes(data, "little", signed=True) if len(data) == _SIZE else None


class _Zygote:
    """The zygote, as its parent sees it.

    Raises:
        EngineError: there is no engine to load, or it cannot run on this processor.
    """

    def __init__(self) -> None:
        location.check_processor()
        library = location.engine_library()
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as theirs:
            try:
                self._start(library, kept, theirs)
            except OSError as error:
                raise EngineError(f"cannot start the pool's process: {error.strerror}") from error
            kept.pop_all()
        self._said = b""
        self._waiting = threading.Lock()
        self.up = False

    def _start(self, library: str, kept: contextlib.ExitStack, theirs: contextlib.ExitStack) -> None:
        ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept.callback(ours.close)
        theirs.callback(other.close)
        said, says = os.pipe()
        kept.callback(os.close, said)
        theirs.callback(os.close, says)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs.callback(os.close, nothing)
        descriptors = (nothing, says, says, other.fileno())
        self._process = process.spawn(descriptors, _BOOTSTRAP, library, forks=True)
        self._ours, self._diagnostics = ours, said

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.alive()

    def wait_up(self) -> None:
        """Wait until it has loaded the engine. Threads may call this at the same time.

        Raises:
            EngineError: it did not.
        """
        with self._waiting:
            if not self.up:
                # It is closed where the process was seen to have ended before anyone asked whether it is up.
                with contextlib.suppress(OSError):
                    self._ours.settimeout(_STARTUP_SECONDS)
                    self.up = bool(self._ours.recv(_SIZE))
                    self._ours.settimeout(_FORK_SECONDS)
        if not self.up:
            raise EngineError(
                f"the pool's process {self.pid} did not load its engine: {self._last_words()}",
                hint="Try `python -c 'import wasmtime'` in the same environment",
            )

    def start(self, descriptors: Sequence[int], grant: Grant) -> _Forked:
        """Have it fork a worker with these descriptors and files.

        Raises:
            OSError: it is gone.
        """
        ours, theirs = socket.socketpair()
        given = array.array("i", [*descriptors, theirs.fileno()])
        try:
            words = wire.pack(*(word.encode("utf-8", "surrogateescape") for word in grant.words()))
            self._ours.sendmsg([words], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Forked(ours)

    def close(self) -> None:
        """End it, and so all of its workers. May be called twice."""
        self._ours.close()
        self._process.end()
        self._last_words()

    def _last_words(self) -> str:
        if self._diagnostics >= 0:
            os.set_blocking(self._diagnostics, False)
            with contextlib.suppress(BlockingIOError):
                self._said += os.read(self._diagnostics, _MAX_DIAGNOSTICS)
            os.close(self._diagnostics)
            self._diagnostics = -1
        return self._said.decode("utf-8", "replace").strip().rpartition("\n")[2] or "no reason given"


class Pool:
    """Runs jobs in warm workers, some at a time. Use it as a context manager, which ends them all.

    Args:
        slots: how many jobs may run at a time; a thread that brings another one waits.
        cage: as for a `Worker`.
        told: called when a process that broke was replaced: what was done, and why in one line. It is called
            in the thread that noticed.
        cache: of compiled modules; None to compile for each job.

    Raises:
        EngineError: there is no engine to load, or it cannot run on this processor.
    """

    def __init__(
        self,
        slots: int,
        cage: Policy = "best",
        told: Callable[[Event, str], None] | None = None,
        cache: Cache | None = None,
    ) -> None:
        self._slots = threading.BoundedSemaphore(slots)
        self._policy, self._cache, self._most = cage, cache, slots
        self._told = told or (lambda _event, _reason: None)
        self._lock = threading.Lock()
        self._closed = False
        self._ready: deque[Worker] = deque()
        self._running = 0
        self._zygote = _Zygote()
        #: How often each event has happened.
        self.counts: dict[Event, int] = {"worker replaced": 0, "zygote restarted": 0}
        for _ in range(slots):
            self._order()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def zygote(self) -> int:
        """Number of the process that forks the workers."""
        return self._zygote.pid

    def close(self) -> None:
        """End every worker; the jobs that still run are lost. May be called twice."""
        with self._lock:
            self._closed = True
            self._zygote.close()
            while self._ready:
                self._ready.popleft().close()

    def wait_ready(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Wait until a worker is ready; returns the layers of its cage, and what is missing.

        Raises:
            EngineError: no worker can be had.
            CageError: a protection is missing, and the policy demands all of them.
        """
        worker = self._take()
        try:
            return worker.wait_ready()
        finally:
            with self._lock:
                self._ready.appendleft(worker)

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        """Run a job in a worker of its own. Threads may call this at the same time.

        Args:
            job: the job.
            streams: as in `Worker.run`.

        Raises:
            JobRefusedError: module, input, arguments or environment are beyond the limits.
            EngineError: no worker can be had, or the pool is closed.
            CageError: a protection is missing, and the policy demands all of them.
        """
        grant = grant_of(job)
        with self._slots, self._take(grant) as worker:
            with self._lock:
                self._running += 1
                scarce = len(self._ready) < self._running
            try:
                # A job's own worker needs the processor: another one is made meanwhile only if the jobs that
                # end next would have to wait for it.
                if scarce:
                    self._order()
                return worker.run(job, streams, self._cache)
            finally:
                with self._lock:
                    self._running -= 1
                self._order()

    def _order(self) -> None:
        """Have a worker forked, without waiting for it."""
        with self._lock:
            if self._closed:
                return
            try:
                if len(self._ready) < self._most:
                    self._ready.append(self._make())
            except EngineError:
                return  # the next job restarts the zygote, or says why it cannot

    def _take(self, grant: Grant | None = None) -> Worker:
        """A worker whose cage is closed. Those that broke while they waited are replaced.

        Args:
            grant: files of its job; a worker with files is forked for it.
        """
        reason = ""
        for _ in range(_TRIES):
            zygote = self._up()
            try:
                worker = self._next(zygote, grant or Grant())
            except EngineError as error:
                reason = str(error)
                continue
            try:
                worker.wait_ready()
                if worker.alive():
                    return worker
                reason = self._replaced(zygote, worker, "it has ended")
            except CageError:
                worker.close()
                raise
            except SilentError as error:
                reason = str(error)
                self._restart(zygote, reason)
                worker.close()
            except EngineError as error:
                reason = self._replaced(zygote, worker, str(error))
        raise EngineError(f"{_TRIES} workers of the pool broke before they had the job; the last: {reason}")

    def _up(self) -> _Zygote:
        """The zygote, with its engine loaded.

        Raises:
            EngineError: none can be had.
        """
        if not self._zygote.alive():
            self._restart(self._zygote, f"process {self._zygote.pid} has ended")
        with self._lock:
            if self._closed:
                raise EngineError("the pool of workers is closed")
            zygote = self._zygote
        zygote.wait_up()
        return zygote

    def _next(self, zygote: _Zygote, grant: Grant) -> Worker:
        """A worker of it.

        Raises:
            EngineError: none can be had; the zygote may have ended just now.
        """
        with self._lock:
            if zygote is self._zygote and self._ready and grant.empty:
                return self._ready.popleft()
        return Worker(self._policy, grant, zygote.start, _FORK_SECONDS)

    def _make(self) -> Worker:
        return Worker(self._policy, None, self._zygote.start, _FORK_SECONDS)

    def _restart(self, broken: _Zygote, reason: str) -> None:
        """Replace the zygote, unless another thread has done so."""
        with self._lock:
            if self._zygote is not broken or self._closed:
                return
            broken.close()
            while self._ready:
                self._ready.popleft().close()
            if not broken.up:
                broken.wait_up()  # it says why it never worked; another one would do the same
            self._zygote = _Zygote()
            self.counts["zygote restarted"] += 1
        self._told("zygote restarted", reason)

    def _replaced(self, zygote: _Zygote, worker: Worker, reason: str) -> str:
        """Clear away a worker that broke, and say why it did."""
        if not zygote.alive():
            self._restart(zygote, f"process {zygote.pid} has ended")
        code = worker.close()
        if code < 0 and worker.pid > 0:
            reason = f"worker process {worker.pid} was ended by signal {-code} before it had a job"
        with self._lock:
            self.counts["worker replaced"] += 1
        self._told("worker replaced", reason)
        return reason
