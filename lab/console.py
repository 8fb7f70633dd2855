"""A machine's console: read from birth, by one thread, whatever anybody waits for.

A serial port without a reader stalls the guest within a few hundred bytes, in the middle of a panic too.
So the reader never stops; everybody else reads from what it has kept.
"""

import contextlib
import math
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from lab import marks
from lab.deaths import Watch
from lab.errors import InfrastructureError, MachineDied, WaitTimeout
from lab.printable import clean
from lab.spawn import ConsoleSpawn

T = TypeVar("T")

#: A machine that prints more than this is broken, and would fill the host's memory and disk.
MAX_BYTES = 64 << 20
#: Bytes of one line; what never ends is cut into lines of this length.
MAX_LINE = 16 << 10
#: Seconds a dying machine gets to finish its last words: quiet for so long, and so long in all.
_QUIET, _LAST_WORDS = 0.5, 5.0
#: Seconds of silence after which a prompt is one, and after which a machine waits without one; and how
#: many times of that where no shell has answered yet: a boot on a busy host pauses, too.
_PROMPT, _PAUSE, _BOOTING = 0.1, 1.0, 3
#: Lines before and after the one that names a death which tell about it.
_BEFORE, _AFTER = 10, 120
#: Seconds in which a machine takes something of what is typed.
SEND_SECONDS = 30
#: Seconds of silence, on a host of ordinary speed, after which a machine that boots, or owes an answer, is
#: dead. A quiet kernel that unpacks its RAM disk under emulation, others at work beside it, says nothing for
#: a good part of that.
SILENCE = 90.0
#: Seconds between two looks, during a wait, at what happens elsewhere.
_LOOK = 0.5


class Line(NamedTuple):
    """A complete line, control characters taken out, and when it came (`time.monotonic()`)."""

    text: str
    arrived: float


class Stream(Protocol):
    """Where a console is: a connected socket, or what does as one does."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none when there are no more."""

    def sendall(self, data: bytes, /) -> None:
        """Type them."""

    def shutdown(self, how: int, /) -> None:
        """End what waits in `recv`."""

    def close(self) -> None:
        """Let go of it."""


class Console:
    """One console.

    Args:
        name: the machine's, for messages.
        stream: where it is; this object owns it.
        log: gets every byte as it comes.
        limit: bytes after which the machine counts as dead and nothing more is kept.
        checked: whether the line may garble bytes: then a mark counts only with a checksum, and once,
            however often the machine repeats it.
        lost: asked when the other end is gone: what took the line away, if that was not the machine.
        went: asked when the machine itself is gone: why, if that is known.
        factor: every number of seconds of a wait is multiplied by this; callers do not do it again.
        elsewhere: called with this console now and then while somebody waits; raises what has gone wrong
            with anything else that the machine needs.

    Attributes:
        lines: the complete lines so far.
        marks: the boot marks among them.
        death: what killed the machine, as its console told it; empty while it lives.
        closed: whether the other end is gone.
    """

    def __init__(
        self,
        name: str,
        stream: Stream,
        log: Path,
        *,
        limit: int = MAX_BYTES,
        checked: bool = False,
        lost: Callable[[], str] = lambda: "",
        went: Callable[[], str] = lambda: "",
        factor: float = 1.0,
        elsewhere: Callable[["Console"], None] = lambda console: None,
    ) -> None:
        self.name = name
        self.factor = factor
        self.lines: list[Line] = []
        self.marks: list[marks.Mark] = []
        self.death = ""
        self.closed = False
        self._lost = lost
        self._went = went
        self._elsewhere = elsewhere
        self._died_at = 0
        self._told = False
        self._watch = Watch()
        self._heard = self._looked = time.monotonic()
        #: Whether a shell has answered here; the session that its agent is in; held while one is used.
        self.answered = False
        self.session = ""
        self.typing = threading.Lock()
        self._limit = limit
        self._checked = checked
        self._stream = stream
        if isinstance(stream, socket.socket):
            # Only sending: a machine that reads nothing must not hold us up; a silent one may be well.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self._log = log.open("wb", buffering=0)
        self._bytes = bytearray()
        self._scanned = 0
        self._changed = threading.Condition()
        self._write_lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, name=f"console-{name}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = self._stream.recv(65536)
            except OSError:
                data = b""
            now = time.monotonic()
            with self._changed:
                if not data:
                    self.closed = True
                    self._changed.notify_all()
                    break
                self._heard = now
                room = self._limit - len(self._bytes)
                if room > 0:
                    self._bytes += data[:room]
                    self._scan(now)
                    if not self._keep(data[:room]):
                        break
                if len(data) > room and not self.death:
                    self.death = f"flood: more than {self._limit} bytes on the console"
                self._changed.notify_all()
        self._log.close()

    def _keep(self, data: bytes) -> bool:
        """Write it down; a host that cannot has taken the line away."""
        try:
            self._log.write(data)
        except OSError as error:
            why = f"the host cannot write {self._log.name}: {error.strerror}"
            self._lost = lambda: why
            self.closed = True
            self._changed.notify_all()
        return not self.closed

    def _scan(self, now: float) -> None:
        while True:
            end = self._bytes.find(b"\n", self._scanned, self._scanned + MAX_LINE)
            if end < 0:
                if len(self._bytes) - self._scanned < MAX_LINE:
                    return
                end = self._scanned + MAX_LINE - 1
            raw = self._bytes[self._scanned : end + 1]
            self._scanned = end + 1
            text = _clean(raw).removesuffix("\n")
            self.lines.append(Line(text, now))
            mark = marks.parse(text, now)
            if mark is not None and self._checked and not self._new(mark):
                mark = None
            death = self._watch.line(text)
            if mark is not None:
                self.marks.append(mark)
                death = death or self._watch.mark(mark.step, mark.t)
            if death and not self.death:
                self.death = death
                self._died_at = len(self.lines) - 1

    def _new(self, mark: marks.Mark) -> bool:
        return bool(mark.crc) and not any(mark.crc == other.crc for other in self.marks[-1:])

    @property
    def text(self) -> str:
        """Everything so far, one string."""
        with self._changed:
            return _clean(self._bytes)

    @property
    def raw(self) -> bytes:
        """Every byte so far, as it came."""
        with self._changed:
            return bytes(self._bytes)

    def since(self, position: int) -> str:
        """What has been said from a position on, control characters taken out."""
        with self._changed:
            return _clean(self._bytes[position:])

    @property
    def heard(self) -> float:
        """When the last byte came (`time.monotonic()`); when it was switched on, before the first."""
        return self._heard

    @property
    def size(self) -> int:
        """Bytes received so far: a position to read from later."""
        with self._changed:
            return len(self._bytes)

    def tail(self, lines: int = 40) -> str:
        """The last lines, for messages."""
        with self._changed:
            return self._tail_locked(lines)

    def _tail_locked(self, lines: int = 40) -> str:
        # Long lines are data; their beginning says which.
        text = _clean(self._bytes[-400 * lines :])
        return "\n".join(line[:300] for line in text.splitlines()[-lines:])

    def send(self, text: str) -> None:
        """Type, without waiting for anything.

        Raises:
            InfrastructureError: the console is gone, or takes nothing any more.
        """
        with self._write_lock:
            try:
                self._stream.sendall(text.encode())
            except OSError as error:
                with self._changed:
                    # The reader may be a moment behind: what it has yet to read says why.
                    self._changed.wait_for(lambda: self.closed, timeout=_QUIET)
                    self._alive("to type")
                raise InfrastructureError(
                    f"{self.name}: the console is gone ({error})", evidence=self.tail()
                ) from error

    def wait(
        self,
        found: Callable[[], T | None],
        what: str,
        *,
        timeout: float,
        deadly: bool = True,
        quiet: float = math.inf,
    ) -> T:
        """Wait until a function of the console's state returns something other than None, and return that.

        Args:
            found: called with the state locked, after every arrival.
            what: what is waited for, for the message.
            timeout: seconds on a host of ordinary speed, as everywhere here.
            deadly: whether a dead machine ends the wait at once: this one, or another of its lab.
            quiet: seconds after which a machine that says nothing at all counts as dead.

        Raises:
            MachineDied: the machine died, or its console closed; or another one died, which is named.
            WaitTimeout: it did not come.
        """
        timeout *= self.factor
        begun = time.monotonic()
        deadline = begun + timeout
        while True:
            with self._changed:
                result = found()
                if result is not None:
                    return result
                if deadly and self.death:
                    self._hear_out()
                    self._alive(f"for {what}")
                if self.closed:
                    self._alive(f"for {what}", deadly=deadly)
                now = time.monotonic()
                left = deadline - now
                silent = max(begun, self._heard) + quiet * self.factor - now
                if min(left, silent) > 0:
                    self._changed.wait(min(left, silent, _LOOK))
            if deadly or left <= 0:
                self._look(now=left <= 0)
            if left <= 0:
                raise WaitTimeout(
                    f"{self.name}: no {what} within {timeout:.0f} s", evidence=self._evidence()
                )
            self.check_silence(begun, quiet, f"waiting for {what}")

    def _alive(self, what: str, *, deadly: bool = True) -> None:
        """Raise what ended the machine, or took its line away; marks it as told."""
        if deadly and self.death:
            self._told = True
            raise MachineDied(f"{self.name}: {self.death}", evidence=self._evidence())
        if not self.closed:
            return
        if why := self._lost():
            self._told = True
            raise InfrastructureError(f"{self.name}: {why}", evidence=self._evidence())
        why = self._went() or "switched off"
        raise MachineDied(f"{self.name}: {why} while waiting {what}", evidence=self._evidence())

    def check(self) -> None:
        """Raise what ended the machine, or took its line away, if no wait has said so yet.

        A machine that was switched off, by itself or by its scenario, has not died.
        """
        with self._changed:
            if self.death and not self._told:
                self._hear_out()
                self._alive("")
            if self.closed and not self._told and self._lost():
                self._alive("")

    def check_silence(self, since: float, quiet: float, what: str) -> None:
        """Raise `MachineDied` if a machine that should say something has said nothing at all for so long.

        Args:
            since: when it began to owe something (`time.monotonic()`).
            quiet: seconds.
            what: is done meanwhile, for the message.
        """
        quiet *= self.factor
        if time.monotonic() - max(since, self._heard) >= quiet:
            raise MachineDied(
                f"{self.name}: silence: not a byte for {quiet:.0f} s, {what}", evidence=self._evidence()
            )

    def _look(self, *, now: bool = False) -> None:
        """Look elsewhere, once in a while. Not with the lock held: others look the other way round."""
        if now or time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            self._elsewhere(self)

    def _hear_out(self) -> None:
        """Let a dying machine finish: it names the cause first, and then the call trace that explains it."""
        end = time.monotonic() + _LAST_WORDS
        while not self.closed and time.monotonic() < end:
            if not self._changed.wait(_QUIET):
                return

    def _evidence(self) -> str:
        with self._changed:
            if not self._died_at:
                return "last lines on the console:\n" + self._tail_locked()
            # The trace that explains a death comes after the line that names it, and may be long.
            told = self.lines[max(0, self._died_at - _BEFORE) : self._died_at + _AFTER]
        return "last lines on the console:\n" + "\n".join(line.text[:300] for line in told)

    def wait_line(
        self,
        pattern: str,
        *,
        timeout: float,
        since: int = 0,
        deadly: bool = True,
        quiet: float = math.inf,
    ) -> "re.Match[str]":
        """Wait for a complete line that matches a regular expression; returns the match.

        Args:
            pattern: searched in each line; no line is longer than `MAX_LINE`.
            timeout: seconds.
            since: number of lines to pass over.
            deadly: whether a dead machine ends the wait at once.
            quiet: seconds after which a machine that says nothing at all counts as dead.
        """
        compiled = re.compile(pattern)
        position = since

        def found() -> "re.Match[str] | None":
            nonlocal position
            while position < len(self.lines):
                match = compiled.search(self.lines[position].text)
                position += 1
                if match:
                    return match
            return None

        return self.wait(found, f"line matching {pattern!r}", timeout=timeout, deadly=deadly, quiet=quiet)

    def wait_death(self, *, timeout: float) -> str:
        """Wait for a death that the scenario wants, and forget it: waiting goes on as if it lived.

        The kernels that have started until then are forgotten, too: they are no reboot loop.

        Args:
            timeout: seconds.

        Returns:
            What killed it.
        """

        def found() -> str | None:
            death, self.death, self._died_at, self._told = self.death, "", 0, False
            if death:
                self._watch = Watch()
            return death or None

        return self.wait(found, "death", timeout=timeout, deadly=False)

    def spawn(self, *, since: int | None = None, timeout: float = 30) -> ConsoleSpawn:
        """A pexpect object on this console, for a dialogue with a boot loader or a program.

        Args:
            since: byte position to read from, such as an earlier `size`; from now on when left out.
            timeout: seconds, when `expect` names none.
        """
        return ConsoleSpawn(self, self.size if since is None else since, timeout=timeout)

    def wait_prompt(self, *, timeout: float) -> bool:
        """Wait until the machine seems to want a line: one stands unfinished, or nothing more is said.

        Args:
            timeout: seconds.

        Returns:
            Whether it seems to; it may be dead, or busy, otherwise.
        """
        deadline = time.monotonic() + timeout * self.factor
        slow = 1 if self.answered else _BOOTING * self.factor
        while True:
            with self._changed:
                unfinished = not self._bytes.endswith(b"\n") and bool(self._bytes)
                now = time.monotonic()
                settled = self._heard + (_PROMPT if unfinished else _PAUSE) * slow - now
                if self.closed or self.death:
                    return False
                if settled <= 0:
                    return True
                if now >= deadline:
                    return False
                self._changed.wait(min(settled, deadline - now, _LOOK))
            self._look()

    def read_from(self, position: int, size: int, timeout: float) -> bytes:
        """Bytes from a position on; waits for the first one. Empty when time is up, or all is over."""
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                if len(self._bytes) > position or self.closed or self.death:
                    return bytes(self._bytes[position : position + size])
                left = deadline - time.monotonic()
                if left <= 0:
                    return b""
                self._changed.wait(min(left, _LOOK))
            self._look()

    def close(self) -> None:
        """Let go of the console."""
        with self._changed:
            if not self.closed:
                # Its owner gives it up, so it is not lost: a board's adapter may go off with it.
                self._lost = lambda: ""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._reader.join(timeout=5)
        self._stream.close()


def _clean(raw: bytes | bytearray) -> str:
    return clean(raw.decode("utf-8", "replace"))
