"""Commands over a console, with exit codes, that neither kernel messages nor a bad line can confuse.

A small agent (`lab.agent`) runs on the machine, and `lab.dialogue` talks to it. Output is held to its
SHA-256. A person gets the console back by typing `@bye`.
"""

import base64
import hashlib
import re
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lab.console import Console
from lab.dialogue import PATIENCE, PIECE, Dialogue, End, Job, Login, digest
from lab.errors import MachineError, MisuseError, ProductError, WaitTimeout

__all__ = ["Login", "Result", "Shell", "Suspended"]

#: Bytes of a command; what is longer belongs into a file.
MAX_COMMAND = 3000
#: Characters of output in one answered line, narrowed whenever nothing comes whole.
_WIDTHS = (600, 240, 96, 48)
#: Bytes of a file that one command carries. A terminal's buffer in the kernel has 64 KiB.
_BLOCK = 24 << 10
#: Bytes of a file from which on a faster line is worth it.
_BULKY = 8 << 10


class Result(NamedTuple):
    """What a command said (standard output and error together) and its exit code."""

    code: int
    output: str


class Suspended(NamedTuple):
    """A command that waits for a line from us, on a machine that may be frozen meanwhile."""

    session: str
    number: int


class Shell:
    """A shell on a console. Several may be made on one console, and used by turns.

    Args:
        console: where.
        timeout: seconds until the shell must have answered for the first time.
        piece: bytes one typed line may carry; fewer for a line that garbles.
        suspended: what waits there; `resume` comes next.
        login: user and password, for a machine that asks.
        faster: gives a shell of the same machine on a faster line, for files; None when there is none.

    Raises:
        WaitTimeout: no shell answered.
        MachineError: the machine asks for a login, or its shell lacks a program.
    """

    def __init__(
        self,
        console: Console,
        *,
        timeout: float = 60,
        piece: int = PIECE,
        suspended: Suspended | None = None,
        login: Login | None = None,
        faster: "Callable[[], Shell | None]" = lambda: None,
    ) -> None:
        self._console = console
        self._dialogue = Dialogue(console, piece)
        self._login = login
        self._faster = faster
        if suspended is None:
            with self._alone():
                self._dialogue.connect(timeout, login)
        else:
            self._dialogue.session, self._dialogue.number = suspended
            console.session = suspended.session

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._console.typing.acquire(blocking=False):
            raise MisuseError(f"{self._console.name}: another thread uses a shell on this console")
        try:
            yield
        finally:
            self._console.typing.release()

    def run(self, command: str, *, timeout: float = 60) -> Result:
        """Run a command, once, however often it has to be typed.

        Args:
            command: for the guest's `sh`; may have several lines.
            timeout: seconds until it must have ended. Then it is ended, with all it has started.

        Returns:
            Its exit code and output.

        Raises:
            MisuseError: the command is too long to type, or another thread uses this console.
            WaitTimeout: it did not end; the transcript is in the message. The shell goes on.
            MachineDied: the machine died meanwhile, or has not said a byte to what was typed.
            MachineError: the answer did not arrive whole.
        """
        code, output = self._run(command, b"", timeout)
        return Result(code, output.decode("utf-8", "replace"))

    def _run(self, command: str, given: bytes, timeout: float) -> tuple[int, bytes]:
        text = command.encode()
        if len(text) > MAX_COMMAND:
            raise MisuseError(f"a command of {len(text)} bytes cannot be typed; put() it into a file first")
        with self._alone():
            job = Job(command, text, given, self._dialogue.now() + timeout)
            self._begin(job)
            return self._ended(lambda: self._dialogue.finish(job), job)

    def _begin(self, job: Job) -> None:
        """Number the next command; in a new session if another shell has taken the agent over."""
        dialogue = self._dialogue
        if not dialogue.session or self._console.session != dialogue.session:
            dialogue.connect(max(job.deadline - dialogue.now(), 1), self._login)
        dialogue.number += 1

    def suspend(self, command: str, *, timeout: float = 60) -> Suspended:
        """Start a command that says `say waits $n` and then reads a line of the terminal.

        Args:
            command: for the guest's `sh`; the terminal is `/proc/$$/fd/0` there.
            timeout: seconds until it must wait.

        Returns:
            What a later `Shell`, maybe of a copy of this machine, needs to `resume` it.

        Raises:
            WaitTimeout: it does not wait.
            ProductError: it ended.
        """
        with self._alone():
            dialogue = self._dialogue
            job = Job(command, command.encode(), b"", dialogue.now() + timeout, start="S")
            self._begin(job)
            end = dialogue.finish(job)
            if not end.waits:
                raise ProductError(f"{self._console.name}: `{command}` exited {end.code} instead of waiting")
            suspended = Suspended(dialogue.session, dialogue.number)
            self._forget()
        return suspended

    def resume(self, line: str, *, timeout: float = 60) -> Result:
        """Give the command that waits its line; returns how it ended.

        The line gets one more word, the digest of `end $n 0 0 -`: with it the command itself can say that
        it has done all it should, some processes before the agent could.

        Raises:
            WaitTimeout: it did not end.
        """
        with self._alone():
            dialogue = self._dialogue
            done = digest(f"{dialogue.session} end {dialogue.number} 0 0 -")
            since = dialogue.position
            self._console.send(f"{line} {done}\n")
            job = Job(line, b"", b"", dialogue.now() + timeout)
            code, output = self._ended(lambda: dialogue.await_end(since, job), job)
        return Result(code, output.decode("utf-8", "replace"))

    def _ended(self, wait: Callable[[], End], job: Job) -> tuple[int, bytes]:
        since = self._dialogue.position
        try:
            end = wait()
            return end.code, self._output(since, end, job)
        except WaitTimeout as error:
            # With the shell of old, one command that hangs would take all others with it.
            if self._dialogue.halt():
                raise WaitTimeout(f"{error.what}; it was ended", evidence=error.evidence) from None
            self._forget()
            raise
        except BaseException:
            # How far it came is not known: the next command begins a new session.
            self._forget()
            raise

    def _forget(self) -> None:
        self._dialogue.session = self._console.session = ""

    def _output(self, since: int, end: End, job: Job) -> bytes:
        """The output of a command: what came by itself, or what of that is missing, asked for."""
        if end.size == 0:
            return b""
        encoded = -(-end.size // 3) * 4
        for width in _WIDTHS:
            count = -(-encoded // width)
            pieces = self._raw(since, width, encoded) if width == _WIDTHS[0] else {}
            barren = 0
            while len(pieces) < count and (barren < 4 or width == _WIDTHS[-1]):
                if self._dialogue.now() > job.deadline:
                    break
                before = len(pieces)
                self._fetch(pieces, width, count, job.deadline)
                barren = 0 if len(pieces) > before else barren + 1
            whole = _decoded("".join(pieces[number] for number in sorted(pieces)))
            if hashlib.sha256(whole).hexdigest() == end.digest:
                return whole
        raise MachineError(
            f"{self._console.name}: the output of `{job.command}` did not arrive whole",
            evidence=self._console.tail(),
        )

    def _raw(self, since: int, width: int, encoded: int) -> dict[int, str]:
        """The lines of output that came unasked, and have the length they should."""
        dialogue = self._dialogue
        raw = re.compile(rf"lab-{dialogue.session} raw {dialogue.number} (\d{{1,9}}) ([A-Za-z0-9+/=]+)$")
        count = -(-encoded // width)
        pieces = {}
        for line in self._console.lines[since:]:
            if found := raw.search(line.text):
                number = int(found[1])
                length = width if number < count else encoded - width * (count - 1)
                if 1 <= number <= count and len(found[2]) == length:
                    pieces[number] = found[2]
        return pieces

    def _fetch(self, pieces: dict[int, str], width: int, count: int, deadline: float) -> None:
        """Ask once for lines of output that are still missing, and take what comes."""
        first = next(number for number in range(1, count + 1) if number not in pieces)
        last = first
        while last < min(count, first + 31) and last + 1 not in pieces:
            last += 1
        number, since = str(self._dialogue.number), self._dialogue.position
        self._dialogue.ask("o", str(first), f"{width},{last}")

        def wanted(words: list[str]) -> bool:
            if len(words) == 4 and words[:2] == ["out", number] and words[2].isdecimal():
                pieces[int(words[2])] = words[3]
                return int(words[2]) == last
            return False

        # 96 bytes more than it says in every line, at 1000 bytes a second.
        patience = PATIENCE + (last - first + 1) * (width + 96) / 1000
        self._dialogue.hear(since, wanted, min(patience, max(deadline - self._dialogue.now(), 0.1)))

    def succeed(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must exit 0; returns its output without the last newline."""
        result = self.run(command, timeout=timeout)
        if result.code != 0:
            raise ProductError(
                f"{self._console.name}: `{command}` exited {result.code}", evidence=result.output[-2000:]
            )
        return result.output.removesuffix("\n")

    def fail(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must not exit 0; returns its output without the last newline."""
        result = self.run(command, timeout=timeout)
        if result.code == 0:
            raise ProductError(
                f"{self._console.name}: `{command}` succeeded and should not", evidence=result.output[-2000:]
            )
        return result.output.removesuffix("\n")

    def wait_until_succeeds(self, command: str, *, timeout: float = 60, pause: float = 0.5) -> str:
        """Run a command again and again until it exits 0; returns its output."""
        deadline = self._dialogue.now() + timeout
        while True:
            left = max(deadline - self._dialogue.now(), 1)
            result = self.run(command, timeout=left)
            if result.code == 0:
                return result.output.removesuffix("\n")
            if self._dialogue.now() + pause > deadline:
                raise ProductError(
                    f"{self._console.name}: `{command}` still exits {result.code} after "
                    f"{timeout * self._console.factor:.0f} s",
                    evidence=result.output[-2000:],
                )
            time.sleep(pause)

    def put(self, path: str, data: bytes, *, timeout: float = 60) -> None:
        """Write a file on the machine, block by block; over a faster line where the machine has one.

        Args:
            path: where, on the machine.
            data: its content.
            timeout: seconds for each block of 24 KiB.

        Raises:
            MachineError: what arrived is not what was sent.
        """
        shell = self._for_files(len(data))
        target = shlex.quote(path)
        shell.succeed(f": >{target}")
        for start in range(0, len(data), _BLOCK):
            code, said = shell._run(f"cat >>{target}", data[start : start + _BLOCK], timeout)
            if code:
                raise ProductError(
                    f"{self._console.name}: cannot write {path}", evidence=said.decode(errors="replace")
                )
        shell._same(path, data, "arrive")

    def get(self, path: str, *, timeout: float = 60) -> bytes:
        """Read a file of the machine, block by block; over a faster line where the machine has one.

        Args:
            path: where, on the machine.
            timeout: seconds for each block of 24 KiB.

        Raises:
            ProductError: there is no such file.
            MachineError: it changed meanwhile.
        """
        source = shlex.quote(path)
        size = int(self.succeed(f"wc -c <{source}"))
        shell = self._for_files(size)
        data = b""
        for block in range(-(-size // _BLOCK)):
            read = f"dd if={source} bs={_BLOCK} skip={block} count=1 2>/dev/null"
            data += shell._run(read, b"", timeout)[1]
        shell._same(path, data, "leave")
        return data

    def _for_files(self, size: int) -> "Shell":
        """The shell for a file of so many bytes: this one, or one on a faster line."""
        return (self._faster() if size > _BULKY else None) or self

    def _same(self, path: str, data: bytes, verb: str) -> None:
        found = self.succeed(f"sha256sum <{shlex.quote(path)}").split()[0]
        if found != hashlib.sha256(data).hexdigest():
            raise MachineError(f"{self._console.name}: {path} did not {verb} whole")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
