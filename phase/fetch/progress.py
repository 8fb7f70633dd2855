"""Progress of a transfer: bytes done, rate, and time left."""

from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic

#: The rate is measured over this many past seconds.
_WINDOW = 10.0


class Progress:
    """Progress of several artifacts, one after the other. Any thread may report.

    Args:
        total: bytes of all of them.
        tell: called with one line for people, for example `12.0 of 80.0 MB, 3.1 MB/s, 22 s left`.
        every: seconds between two lines; a shorter transfer gets no line.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        total: int,
        tell: Callable[[str], None],
        *,
        every: float = 5.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._total = total
        self._tell = tell
        self._every = every
        self._clock = clock
        self._lock = Lock()
        self._before = self._done = 0
        self._told = clock()
        #: Times, and the bytes fetched by then; kept bytes are left out.
        self._past: deque[tuple[float, int]] = deque([(self._told, 0)])

    def artifact(self) -> Callable[[int, int], None]:
        """Begin the next artifact; returns what `fetch_artifact` takes as its `progress`."""
        self._before += self._done
        self._done = 0
        first = True

        def progress(done: int, _: int) -> None:
            nonlocal first
            with self._lock:
                new = 0 if first else max(done - self._done, 0)
                first = False
                self._done = max(done, self._done)
                self._moved(new)

        return progress

    def _moved(self, new: int) -> None:
        now = self._clock()
        self._past.append((now, self._past[-1][1] + new))
        while now - self._past[1][0] >= _WINDOW:
            self._past.popleft()
        if now - self._told >= self._every:
            self._told = now
            self._tell(self._line())

    def _line(self) -> str:
        done = self._before + self._done
        (then, had), (now, has) = self._past[0], self._past[-1]
        line = f"{done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
        if has == had:
            return line
        rate = (has - had) / (now - then)
        return f"{line}, {rate / 1e6:.1f} MB/s, {(self._total - done) / rate:.0f} s left"
