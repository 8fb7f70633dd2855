"""A line every few seconds that says what a boot waits for: a silent screen looks like a dead machine."""

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType

from phase import marks

#: Seconds without a line for people before the next one says what is waited for.
EVERY = 5.0


class Waiting:
    """Speaks while nothing else does, from a thread of its own.

    Args:
        left: seconds that are left for the boot.
        every: seconds of silence before it speaks.
    """

    def __init__(self, left: Callable[[], float], *, every: float = EVERY) -> None:
        #: What is waited for, as the end of "waiting for"; it says nothing while this is empty.
        self.what = ""
        self._left = left
        self._every = every
        self._end = Event()
        self._thread = Thread(target=self._run, name="waiting", daemon=True)

    def __enter__(self) -> "Waiting":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(min(self._every / 5, 1.0)):
            what = self.what
            if what and marks.silence() >= self._every:
                marks.say(f"waiting for {what}; {max(self._left(), 0):.0f} s left")
