"""A machine's console: read from birth, by one thread, whatever anybody waits for.

A serial port nobody reads stalls the guest within a few hundred bytes, in the middle of a panic too.
So the reader never stops; everybody else reads from what it has kept.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pexpect import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

from lab import marks
from lab.errors import InfrastructureError, MachineDied, WaitTimeout

#: Kernel messages after which nothing good comes. Checked on every line.
DEATHS = {
    "kernel panic": re.compile(r"Kernel panic - not syncing: .*"),
    "out of memory": re.compile(r"Out of memory: Killed process .*|Out of memory and no killable processes.*"),
    "kernel oops": re.compile(r"(Internal error: Oops|BUG: unable to handle|Oops: \d+ \[#\d+\]).*"),
    "hung task": re.compile(r"INFO: task .* blocked for more than \d+ seconds.*"),
    "RCU stall": re.compile(r"rcu: INFO: rcu_\w+ (self-)?detected (expedited )?stalls?.*"),
}
_MAX_KEPT = 64 << 20
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[c7-9=>]|[\x00-\x08\x0b-\x1f\x7f]")


class Line(NamedTuple):
    """A complete line, control characters taken out, and when it came (`time.monotonic()`)."""

    text: str
    arrived: float


class Console:
    """One console.

    Args:
        name: the machine's, for messages.
        stream: a connected socket; this object owns it.
        log: gets every byte as it comes.
    """

    def __init__(self, name: str, stream: socket.socket, log: Path) -> None:
        self.name = name
        self.lines: list[Line] = []
        self.marks: list[marks.Mark] = []
        #: What killed the machine, as its console told it.
        self.death = ""
        self.closed = False
        self._stream = stream
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
                if len(self._bytes) < _MAX_KEPT:
                    self._bytes += data
                self._log.write(data)
                self._scan(now)
                self._changed.notify_all()
        self._log.close()

    def _scan(self, now: float) -> None:
        while (end := self._bytes.find(b"\n", self._scanned)) >= 0:
            raw = self._bytes[self._scanned : end]
            self._scanned = end + 1
            text = _CONTROL.sub("", raw.decode("utf-8", "replace"))
            self.lines.append(Line(text, now))
            mark = marks.parse(text, now)
            if mark is not None:
                self.marks.append(mark)
            if not self.death:
                for name, pattern in DEATHS.items():
                    found = pattern.search(text)
                    if found:
                        self.death = f"{name}: {found.group()}"

    @property
    def text(self) -> str:
        """Everything so far, one string."""
        with self._changed:
            return _CONTROL.sub("", bytes(self._bytes).decode("utf-8", "replace"))

    @property
    def size(self) -> int:
        """Bytes received so far: a position to read from later."""
        with self._changed:
            return len(self._bytes)

    def tail(self, lines: int = 40) -> str:
        """The last lines, for messages."""
        return _last_lines(self.text, lines)

    def send(self, text: str) -> None:
        """Type, without waiting for anything.

        Raises:
            InfrastructureError: the console is gone.
        """
        with self._write_lock:
            try:
                self._stream.sendall(text.encode())
            except OSError as error:
                raise InfrastructureError(
                    f"{self.name}: nobody is at the console any more ({error})", evidence=self.tail()
                ) from error

    def wait(self, found: Callable[[], object], what: str, *, timeout: float, deadly: bool = True) -> object:
        """Wait until a function of the console's state returns something true, and return that.

        Args:
            found: called with the state locked, after every arrival.
            what: what is waited for, for the message.
            timeout: seconds.
            deadly: whether a dead machine ends the wait at once.

        Raises:
            MachineDied: the machine died, or its console closed.
            WaitTimeout: it did not come.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                result = found()
                if result:
                    return result
                if deadly and self.death:
                    raise MachineDied(f"{self.name}: {self.death}", evidence=self._tail_locked())
                if self.closed:
                    raise MachineDied(
                        f"{self.name}: switched off while waiting for {what}", evidence=self._tail_locked()
                    )
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(
                        f"{self.name}: no {what} within {timeout:.0f} s", evidence=self._tail_locked()
                    )
                self._changed.wait(left)

    def _tail_locked(self) -> str:
        text = _CONTROL.sub("", bytes(self._bytes[-16384:]).decode("utf-8", "replace"))
        return "last lines on the console:\n" + _last_lines(text, 40)

    def wait_line(self, pattern: str, *, timeout: float, since: int = 0) -> "re.Match[str]":
        """Wait for a complete line that matches a regular expression; returns the match.

        Args:
            pattern: searched in each line.
            timeout: seconds.
            since: number of lines to pass over.
        """
        compiled = re.compile(pattern)
        position = since

        def found() -> object:
            nonlocal position
            while position < len(self.lines):
                match = compiled.search(self.lines[position].text)
                position += 1
                if match:
                    return match
            return None

        result = self.wait(found, f"line matching {pattern!r}", timeout=timeout)
        assert isinstance(result, re.Match)
        return result

    def spawn(self, *, since: int | None = None) -> "ConsoleSpawn":
        """A pexpect object on this console, for a dialogue with a boot loader or a program."""
        return ConsoleSpawn(self, self.size if since is None else since)

    def read_from(self, position: int, size: int, timeout: float) -> bytes:
        """Bytes from a position on; waits for the first one. Empty when time is up."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self._bytes) <= position and not self.closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return b""
                self._changed.wait(left)
            return bytes(self._bytes[position : position + size])

    def close(self) -> None:
        """Let go of the console."""
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join(timeout=5)
        self._stream.close()


class ConsoleSpawn(SpawnBase):  # type: ignore[misc]  # pexpect's stubs leave the base untyped
    """pexpect over what a console's reader keeps: expecting here takes nothing from anybody else."""

    def __init__(self, console: Console, position: int) -> None:
        super().__init__(timeout=30, encoding="utf-8", codec_errors="replace")
        self._console = console
        self._position = position

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
        """What pexpect calls to read on."""
        seconds = self.timeout if timeout == -1 else timeout
        data = self._console.read_from(self._position, size, 3600.0 if seconds is None else max(seconds, 0))
        if not data:
            if self._console.closed:
                raise EOF("the console closed")
            raise TIMEOUT("nothing more on the console")
        self._position += len(data)
        return str(self._decoder.decode(data, final=False))

    def send(self, text: str) -> int:
        """Type."""
        self._console.send(text)
        return len(text)

    def sendline(self, text: str = "") -> int:
        """Type a line."""
        return self.send(f"{text}\n")


def _last_lines(text: str, count: int) -> str:
    # Long lines are data; their beginning says which.
    return "\n".join(line[:300] for line in text.splitlines()[-count:])
