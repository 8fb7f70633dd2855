"""Writes lines to a log that may be full, stuck or gone: a write never waits and never fails.

Lines that cannot be written are counted, and the other log reports the loss once.
"""

import contextlib
import logging
import os
import select
import stat
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from phase.provider.health import Part, Problem

#: Lines lost in this process, by the name of the log.
LOST: Counter[str] = Counter()
#: Seconds between two tries to open a file again.
RETRY_SECONDS = 1.0
_writers: "weakref.WeakSet[LineWriter]" = weakref.WeakSet()
#: Seconds for which a lost line counts as a problem.
REMEMBER_SECONDS = 60.0
#: Bytes that a pipe takes without waiting, once it says that it takes any (pipe(7)).
_PIECE = select.PIPE_BUF
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LineWriter:
    """Writes lines to one place.

    Args:
        name: of the log, for people and in metrics.
        place: the file; opened anew when it is moved away or `reopen` is called. None for `descriptor`.
        descriptor: an open one, in place of a file.
        say: called with a message when lines are lost, and when they are written again.

    Raises:
        OSError: the file cannot be opened; a pipe that is not read yet can be.
    """

    def __init__(
        self, name: str, *, place: Path | None = None, descriptor: int = -1, say: Callable[[str], None]
    ) -> None:
        _writers.add(self)
        self.name = name
        self._place = place
        self._descriptor = descriptor
        self._say = say
        #: Why the last line could not be written; None if it was.
        self._trouble: str | None = None
        self._lost_at = -REMEMBER_SECONDS
        self._opened_at = monotonic()
        #: Whether the last line was written in part.
        self._torn = False
        self._file: tuple[int, int] | None = None
        self._may_wait = True
        if place is not None:
            try:
                self._open(place)
            except OSError as error:
                if not stat.S_ISFIFO(_mode(place)):
                    raise
                self._lose(error, lines=0)
        else:
            self._look()

    def write(self, line: str) -> None:
        """Write a line, or count it as lost.

        Args:
            line: text without the final line end; it may contain line ends.
        """
        try:
            self._follow()
            data = line.encode("utf-8", "backslashreplace") + b"\n"
            self._write(b"\n" + data if self._torn else data)
        except (OSError, ValueError) as error:
            self._lose(error)
            return
        if self._trouble is not None:
            self._trouble = None
            self._say(f"the {self.name} is written again; it has lost {LOST[self.name]} lines in all")

    def reopen(self) -> None:
        """Open the file anew with the next line."""
        if self._place is not None:
            self._close()
            self._opened_at = -RETRY_SECONDS

    def problems(self) -> list[Problem]:
        """One problem if lines were lost lately."""
        if monotonic() - self._lost_at >= REMEMBER_SECONDS:
            return []
        why = self._trouble or "it works again"
        return [Problem(Part.LOG, f"the {self.name} has lost {LOST[self.name]} lines: {why}")]

    def _follow(self) -> None:
        """Open the file anew if log rotation has moved it away."""
        if self._place is None:
            return
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                found = os.stat(self._place)
                if (found.st_dev, found.st_ino) == self._file:
                    return
            self._close()
        elif monotonic() - self._opened_at < RETRY_SECONDS:
            raise OSError(0, self._trouble or "it is not open")
        self._open(self._place)

    def _open(self, place: Path) -> None:
        self._opened_at = monotonic()
        self._descriptor = os.open(place, _FLAGS, 0o640)
        self._torn = False
        self._look()

    def _look(self) -> None:
        try:
            found = os.fstat(self._descriptor)
        except OSError:
            return  # closed; the next line reports it
        self._file = (found.st_dev, found.st_ino)
        self._may_wait = not stat.S_ISREG(found.st_mode)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        while data:
            piece = data[:_PIECE] if self._may_wait else data
            if self._may_wait and not _takes(self._descriptor):
                raise OSError(0, "its reader does not read")
            written = os.write(self._descriptor, piece)
            data = data[written:]
            self._torn = bool(data)

    def _lose(self, error: Exception, *, lines: int = 1) -> None:
        LOST[self.name] += lines
        self._lost_at = monotonic()
        before, self._trouble = self._trouble, getattr(error, "strerror", None) or str(error)
        if before is None:
            self._say(f"the {self.name} cannot be written, lines are lost: {self._trouble}")


class LineHandler(logging.Handler):
    """Gives the records of `logging` to a writer.

    Args:
        writer: writes them.
    """

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            text = self.format(record)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            text = f"{record.levelname} {record.name}: a message that cannot be shown: {error}"
        self._writer.write(text)


def problems() -> list[Problem]:
    """The problems of all logs of this process."""
    return [problem for writer in list(_writers) for problem in writer.problems()]


def _takes(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLOUT | select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _mode(place: Path) -> int:
    try:
        return os.stat(place).st_mode
    except OSError:
        return 0
