"""The process of a worker, as its parent sees it: how it is started, and how it is ended."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from phase.jobs.errors import EngineError
from phase.jobs.grant import Grant

#: The engine's WASI keeps a thread pool as wide as the machine unless told otherwise.
_ENVIRONMENT = {"TOKIO_WORKER_THREADS": "1"}


class Process(Protocol):
    """A worker's process."""

    @property
    def pid(self) -> int:
        """Its number."""

    def end(self) -> int:
        """Kill it if it still lives; returns its exit code, negative for a signal. May be called twice."""

    def leave(self) -> None:
        """It has said its last word: see that it ends. Only a parent that can do no other waits for that."""


#: Starts a process that has these descriptors as its 0, 1, 2 and so on, and these files.
Start = Callable[[Sequence[int], Grant], Process]


class Spawned:
    """A child of this process.

    Args:
        pid: its number.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def end(self) -> int:
        """Kill it if it still lives; returns its exit code, negative for a signal."""
        if self._code is not None:
            return self._code
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # a no-op for one that has left and is not reaped
        return self._wait(0) or 0

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._code is None and self._wait(os.WNOHANG) is None

    def _wait(self, options: int) -> int | None:
        # If this process has inherited an ignored SIGCHLD, the kernel reaps its children by itself.
        try:
            pid, raw = os.waitpid(self.pid, options)
        except ChildProcessError:
            pid, raw = self.pid, 0
        if pid:
            self._code = os.waitstatus_to_exitcode(raw)
        return self._code

    def leave(self) -> None:
        """End it."""
        self.end()


def spawn(descriptors: Sequence[int], bootstrap: str, *words: str, forks: bool = False) -> Spawned:
    """Start Python of our own, with an empty environment and only the standard library on its path.

    Args:
        descriptors: become 0, 1, 2 and so on; all others are closed.
        bootstrap: Python; it finds the directory of `phase` as its last argument.
        words: its other arguments.
        forks: whether it will fork others: then it links its libraries once for all of them.

    Raises:
        OSError: no process, or no descriptors are left.
    """
    import fcntl

    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-I", "-S", "-c", bootstrap, *words, package]
    # The ends move above those that they become, or one dup2 could overwrite the next.
    moved: list[int] = []
    try:
        for end in descriptors:
            moved.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(moved)]
        return Spawned(os.posix_spawn(sys.executable, command, _environment(forks), file_actions=actions))
    finally:
        for end in moved:
            os.close(end)


def pipes(count: int) -> list[tuple[int, int]]:
    """Make pipes: of each the reader and the writer.

    Raises:
        EngineError: no descriptors are left.
    """
    found: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            found.append(os.pipe())
    except OSError as error:
        for end in (end for pipe in found for end in pipe):
            os.close(end)
        raise EngineError(f"cannot start a worker process: {error.strerror}") from error
    return found


def _environment(forks: bool) -> dict[str, str]:
    """A worker's environment: from the caller's, only the directories of a shared libpython."""
    found = os.environ.get("LD_LIBRARY_PATH")
    return (
        _ENVIRONMENT
        | ({"LD_BIND_NOW": "1"} if forks else {})
        | ({"LD_LIBRARY_PATH": found} if found else {})
    )
