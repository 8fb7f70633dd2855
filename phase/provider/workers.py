"""More than one process behind one listening socket.

The kernel gives each connection to one of them. `together` adds up their counters. Their parent only
watches over them: it starts a process that ends anew, with back-off; if one ends again and again, it ends
them all and fails.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from phase.errors import PhaseError
from phase.provider import systemd
from phase.provider.errors import ProviderError

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
#: Seconds to the next start of a worker that has ended; doubled each time, up to the second number.
RETRY_SECONDS = (0.2, 5.0)
#: A worker that ends sooner after its start than this, seconds, so many times in a row, ends them all.
STEADY_SECONDS = 10.0
MAX_SHORT_LIVES = 5
#: Seconds that workers have to end; then they are killed.
END_SECONDS = 27.0
#: A second signal to stop means "at once" if it comes this many seconds after the first.
_AGAIN_SECONDS = 0.5
#: Seconds between two checks whether all workers have begun to serve.
_LOOK_SECONDS = 0.05
_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
Work = Callable[[int], None]


class Places(Protocol):
    """Keeps the state of each worker for the others; see `together.Board`."""

    def started(self, number: int) -> None:
        """A worker is about to start. The connections of its predecessor have ended."""

    def ended(self, number: int, reason: str) -> None:
        """A worker has ended."""

    def serving(self) -> bool:
        """Whether all workers have begun to serve."""


@dataclass
class _Worker:
    """One worker process.

    Attributes:
        number: of this worker, from 0.
        pid: of its process; 0 while it has none.
        started: when, monotonic seconds.
        due: when it is started next, monotonic seconds.
        short_lives: how often in a row it has ended soon after its start.
    """

    number: int
    pid: int = 0
    started: float = 0.0
    due: float = 0.0
    short_lives: int = 0


def run(
    count: int,
    work: Work,
    *,
    places: Places | None = None,
    ready: Callable[[], None] = lambda: None,
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Do the work in this process, or in several workers that this process watches over.

    Call it before any thread or event loop has started. On SIGTERM or SIGINT the workers are told to end
    (SIGTERM), on a second one at once (SIGQUIT). No worker outlives this process, however it ends.

    Args:
        count: workers; with 1 the work is done in this process.
        work: ends on SIGTERM. Its argument is the number of the worker, from 0.
        places: keeps the state of the workers.
        ready: called once all workers have begun to serve.
        ending: called before the workers are told to end, such as to close the socket that they share.

    Raises:
        ProviderError: a worker cannot be started at first, ends again and again, or failed when it was told
            to end.
    """
    if count == 1:
        # The work handles SIGTERM itself, but not from its first moment on.
        signal.signal(signal.SIGTERM, _terminated)
        work(0)
        return
    _Parent(count, work, places, ready, ending).run()


class _Parent:
    """Watches over the workers."""

    def __init__(
        self,
        count: int,
        work: Work,
        places: Places | None,
        ready: Callable[[], None],
        ending: Callable[[], None],
    ) -> None:
        self._workers = [_Worker(number) for number in range(count)]
        self._work = work
        self._places = places
        self._ready: Callable[[], None] | None = ready
        self._ending = ending
        self._signals = _SIGNALS if on_terminal() else _SIGNALS | {signal.SIGHUP}
        #: Workers that failed after they were told to end.
        self._bad: list[str] = []

    def run(self) -> None:
        """Watch over the workers until a signal says to stop."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            while True:
                self._start_due()
                found = signal.sigtimedwait(self._signals, self._pause())
                if found is None:
                    self._look()
                elif found.si_signo == signal.SIGCHLD:
                    self._reap()
                elif found.si_signo == signal.SIGHUP:
                    self._tell(signal.SIGHUP)
                else:
                    return
        finally:
            systemd.notify("STOPPING=1")
            self._ending()
            self._end()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if self._bad and sys.exc_info()[0] is None:
                raise ProviderError(f"not all workers ended well: {'; '.join(self._bad)}")

    def _start_due(self) -> None:
        now = monotonic()
        for worker in self._workers:
            if not worker.pid and now >= worker.due:
                if self._places is not None:
                    self._places.started(worker.number)
                worker.started = now
                try:
                    worker.pid = _fork(worker.number, self._work)
                except OSError as error:
                    self._not_started(worker, error)

    def _not_started(self, worker: _Worker, error: OSError) -> None:
        """Try again later if others serve: memory or processes may be short for a moment."""
        if self._ready is not None:
            raise ProviderError(f"worker {worker.number} cannot be started: {error.strerror}") from error
        self._start_later(worker, f"and cannot be started: {error.strerror}", RETRY_SECONDS[1])

    def _pause(self) -> float:
        if self._ready is not None:
            return _LOOK_SECONDS
        dues = [worker.due for worker in self._workers if not worker.pid]
        return max(min(dues) - monotonic(), 0.0) if dues else 3600.0

    def _look(self) -> None:
        if self._ready is not None and (self._places is None or self._places.serving()):
            self._ready()
            self._ready = None
            systemd.notify("READY=1")

    def _reap(self) -> None:
        for worker, code in self._ended():
            reason = _how(code)
            lived = monotonic() - worker.started
            worker.short_lives = worker.short_lives + 1 if lived < STEADY_SECONDS else 1
            if worker.short_lives >= MAX_SHORT_LIVES:
                raise ProviderError(
                    f"worker {worker.number} ended {worker.short_lives} times in a row within "
                    f"{STEADY_SECONDS:.0f} s of its start, the last time {reason}",
                    hint="The lines of the log before this one say why.",
                )
            pause = min(RETRY_SECONDS[0] * 2 ** (worker.short_lives - 1), RETRY_SECONDS[1])
            self._start_later(worker, reason, pause)

    def _start_later(self, worker: _Worker, reason: str, pause: float) -> None:
        worker.due = monotonic() + pause
        if self._places is not None:
            self._places.ended(worker.number, reason)
        _log.error("worker %d ended %s; it is started anew in %.1f s", worker.number, reason, pause)

    def _ended(self) -> list[tuple[_Worker, int]]:
        """The workers that have ended since the last look, with exit code or negative signal number."""
        found = []
        for worker in self._workers:
            if not worker.pid:
                continue
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = worker.pid, 0
            if pid:
                worker.pid = 0
                found.append((worker, os.waitstatus_to_exitcode(status)))
        return found

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    def _end(self) -> None:
        """End all workers, within a time."""
        begun, killed = monotonic(), False
        self._tell(signal.SIGTERM)
        while any(worker.pid for worker in self._workers):
            left = begun + END_SECONDS - monotonic()
            found = signal.sigtimedwait(self._signals, max(min(left, 1.0), 0.01))
            again = found is not None and found.si_signo in (signal.SIGTERM, signal.SIGINT)
            if again and monotonic() - begun >= _AGAIN_SECONDS:
                self._tell(signal.SIGQUIT)
            if left <= 0 and not killed:
                _log.warning("workers do not end within %.0f s; they are killed", END_SECONDS)
                self._tell(signal.SIGKILL)
                killed = True
            self._bad += [
                f"worker {worker.number} ended {_how(code)}" for worker, code in self._ended() if code
            ]


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def on_terminal() -> bool:
    """Whether a person started this. Then SIGHUP means that the terminal is gone; otherwise, reopen logs."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def _fork(number: int, work: Work) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        # The parent tells its workers to end; a terminal would tell them a second time.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _terminated)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS | {signal.SIGHUP})
        _end_with(parent)
        work(number)
        code = 0
    except SystemExit as error:
        code = 0 if error.code in (0, None) else 1  # told to end before the work had begun
    except PhaseError as error:
        _log.error("worker %d failed: %s", number, error)
    except BaseException:
        _log.exception("worker %d failed", number)
    finally:
        os._exit(code)


def _end_with(parent: int) -> None:
    """Receive SIGTERM also when the parent is killed; only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(0)
