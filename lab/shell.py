"""Commands over a console, with exit codes, that neither kernel messages nor a bad line can confuse.

A small agent (`lab.agent`) runs on the machine. Every line typed to it, and every line it answers with,
carries a digest; what arrives garbled is asked for again. Commands are numbered, so that one typed twice
runs once, and output is held to its SHA-256. Answers go through the kernel log where the machine lets
us: the kernel prints whole records, so a driver's message cannot stand in the middle of one. A person
gets the console back by typing `@bye`.
"""

import base64
import hashlib
import re
import secrets
import shlex
import time
from collections.abc import Callable
from typing import NamedTuple, TypeGuard

from lab.agent import SCRIPT
from lab.console import SILENCE, Console
from lab.errors import MachineError, MisuseError, ProductError, WaitTimeout

#: Bytes of a command; what is longer belongs into a file.
MAX_COMMAND = 3000
#: Bytes that one typed line carries, at most and at least: halved whenever one arrives garbled.
_PIECE, _SMALLEST = 1500, 48
#: Characters of output in one answered line, narrowed the same way.
_WIDTHS = (600, 240, 96, 48)
#: Bytes of a file that one command carries.
_BLOCK = 48 << 10
#: Seconds to wait for an answer to one line before typing it again; doubled each time.
_PATIENCE, _MOST_PATIENCE = 2.0, 16.0
_AGENT = base64.b64encode(SCRIPT.encode()).decode()
#: A shell that reads the terminal as a script: no echo, no prompt, no line editor.
_SETUP = 'stty -echo -ixon; sh "$(tty)"'
#: A garbled byte may have told the terminal to hold its output (^S). The space is for line editors that
#: have ^Q mean "take the next one as it is".
_RESUME = "\x11 "
_FRAME = re.compile(r"lab-(\w+ .*) ([0-9a-f]{12})(?![0-9a-f])")


class Result(NamedTuple):
    """What a command said (standard output and error together) and its exit code."""

    code: int
    output: str


class Suspended(NamedTuple):
    """A command that waits for a line from us, on a machine that may be frozen meanwhile."""

    session: str
    number: int


class Shell:
    """A shell on a console. Use one at a time.

    Args:
        console: where.
        timeout: seconds until the shell must have answered for the first time.
        piece: bytes one typed line may carry; fewer for a line that garbles.
        suspended: what waits there; `resume` comes next.
    """

    def __init__(
        self,
        console: Console,
        *,
        timeout: float = 60,
        piece: int = _PIECE,
        suspended: Suspended | None = None,
    ) -> None:
        self._console = console
        self._most = self._piece = piece
        self._session, self._number = suspended or ("", 0)
        if suspended is None:
            self._connect(timeout)

    def _now(self) -> float:
        """A clock that goes slower on a slow host, as all the seconds here do."""
        return time.monotonic() / self._console.factor

    def _connect(self, timeout: float) -> None:
        deadline = self._now() + timeout
        self._session, self._number = secrets.token_hex(4), 0
        since = len(self._console.lines)
        attempt = 0
        while True:
            # A driver that starts its UART while much is being typed may never hear of a byte again (the
            # PL011's, whose interrupt comes with the first one only): type when somebody wants a line.
            self._console.wait_prompt(timeout=min(20.0, max(deadline - self._now(), 0)))
            self._greet(attempt)
            left = deadline - self._now()
            # Asked again now and then: what was typed before the shell was there may be lost.
            answer = self._hear(since, lambda words: words == ["ready"], min(5.0, left))
            if answer is not None:
                self._console.answered = True
                return
            if deadline - self._now() <= 0:
                raise WaitTimeout(
                    f"{self._console.name}: no shell answered within {timeout * self._console.factor:.0f} s",
                    evidence="last lines on the console:\n" + self._console.tail(),
                )
            attempt += 1

    def _greet(self, attempt: int) -> None:
        """Greet the agent, and bring one to whatever shell is there if it is not; it ignores that."""
        send, session = self._console.send, self._session
        # A line that garbled a quote leaves a shell waiting for the other one. Not every time: a shell
        # that is left alone keeps the pieces which came whole.
        fresh = attempt % 3 == 1
        send(_RESUME + ("\x03\n" if fresh else "\n"))
        self._type("@hello", session, "h", "0", "-")
        if fresh or attempt == 0:
            send(f"{_SETUP}\n")
        # The kernel's log may be set too quiet for answers; then the terminal has to do.
        ready = f"sid={session};K={1 - attempt % 4 // 3};"
        if attempt == 0:
            send(f"B={_AGENT};{_check('$B', _AGENT, ready + _run('$B'))}\n")
            return
        names = ""
        for number, start in enumerate(range(0, len(_AGENT), 200)):
            piece = _AGENT[start : start + 200]
            send(f"B={piece};{_check('$B', piece, f'A{number}=$B')}\n")
            names += f"$A{number}"
        send(_check(names, _AGENT, ready + _run(names)) + "\n")

    def _type(self, *words: str) -> None:
        text = " ".join(words)
        self._console.send(f"{text} {_digest(text)}\n")

    def _hear(
        self, since: int, wanted: Callable[[list[str]], bool], timeout: float, *, garbled: bool = False
    ) -> list[str] | None:
        """Wait for an answer; None when none came, or (if asked) when one came that cannot be read."""
        position = since

        def found() -> list[str] | None:
            nonlocal position
            while position < len(self._console.lines):
                text = self._console.lines[position].text
                position += 1
                words = self._read(text)
                if words is not None and wanted(words):
                    return words
                if garbled and (words == ["nak"] or (words is None and _looks_answered(text))):
                    return []
            return None

        try:
            return self._console.wait(found, "answer", timeout=max(timeout, 0.01)) or None
        except WaitTimeout:
            return None

    def _read(self, text: str) -> list[str] | None:
        frame = _FRAME.search(text)
        if frame is None or _digest(frame[1]) != frame[2]:
            return None
        session, *words = frame[1].split(" ")
        return words if session == self._session else None

    def run(self, command: str, *, timeout: float = 60) -> Result:
        """Run a command, once, however often it has to be typed.

        Args:
            command: for the guest's `sh`; may have several lines.
            timeout: seconds until it must have ended.

        Returns:
            Its exit code and output.

        Raises:
            MisuseError: the command is too long to type.
            WaitTimeout: it did not end; the transcript is in the message.
            MachineDied: the machine died meanwhile, or has not said a byte to what was typed.
            MachineError: the answer did not arrive whole.
        """
        code, output = self._run(command, b"", timeout)
        return Result(code, output.decode("utf-8", "replace"))

    def _run(self, command: str, given: bytes, timeout: float) -> tuple[int, bytes]:
        text = command.encode()
        if len(text) > MAX_COMMAND:
            raise MisuseError(f"a command of {len(text)} bytes cannot be typed; put() it into a file first")
        deadline = self._now() + timeout
        if not self._session:
            self._connect(max(deadline - self._now(), 1))
        self._number += 1
        return self._ended(text, given, deadline, command)

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
        self._number += 1
        deadline = self._now() + timeout
        answer = self._finish(command.encode(), b"", deadline, command)
        if answer[0] != "waits":
            raise ProductError(f"{self._console.name}: `{command}` exited {answer[2]} instead of waiting")
        suspended = Suspended(self._session, self._number)
        self._session = ""
        return suspended

    def resume(self, line: str, *, timeout: float = 60) -> Result:
        """Give the command that waits its line; returns how it ended.

        The line gets one more word, the digest of `end $n 0 0 -`: with it the command itself can say that
        it has done all it should, some processes before the agent could.

        Raises:
            WaitTimeout: it did not end.
        """
        done = _digest(f"{self._session} end {self._number} 0 0 -")
        self._console.send(f"{line} {done}\n")
        deadline = self._now() + timeout
        code, output = self._ended(b"", b"", deadline, line, done=-1)
        return Result(code, output.decode("utf-8", "replace"))

    def _ended(
        self, text: bytes, given: bytes, deadline: float, command: str, *, done: int = 0
    ) -> tuple[int, bytes]:
        since = len(self._console.lines)
        try:
            answer = self._finish(text, given, deadline, command, done=done)
            return int(answer[2]), self._output(since, int(answer[3]), answer[4], deadline, command)
        except BaseException:
            # Nobody knows how far it came: the next command begins a new session.
            self._session = ""
            raise

    def _finish(
        self, text: bytes, given: bytes, deadline: float, command: str, *, done: int = 0
    ) -> list[str]:
        """Type a command until it runs (when `done` is negative, it does already), and wait for its end."""
        whole, number = text + given, str(self._number)
        patience = _PATIENCE
        since = len(self._console.lines)
        begun = time.monotonic()
        while True:
            if done >= 0:
                # Until it runs, an answer is due to whatever is typed; then it may be silent as it likes.
                self._console.check_silence(begun, SILENCE, f"typing `{command}`")
            left = deadline - self._now()
            if left <= 0:
                raise WaitTimeout(
                    f"{self._console.name}: `{command}` did not end in time",
                    evidence="last lines on the console:\n" + self._console.tail(),
                )
            mark = len(self._console.lines)
            if done < 0:
                wait = min(left, patience)
            else:
                until = len(text) if done < len(text) else len(whole)
                piece = whole[done : min(done + self._piece, until)]
                kind = "c" if done < len(text) or not whole else "i"
                kind = kind.upper() if done + len(piece) == len(whole) else kind
                carried = f"{len(piece)},{base64.b64encode(piece).decode()}"
                self._type(f"@{self._session}", number, kind, str(done), carried)
                wait = min(left, patience)
            answer = self._hear(
                since if done < 0 else mark,
                lambda words: words[:2] in (["got", number], ["end", number], ["waits", number]),
                wait,
                garbled=True,
            )
            if _is_last(answer):
                return answer
            if answer and answer[0] == "got":
                since = len(self._console.lines)
                moved = int(answer[2]) != done
                done = int(answer[2])
                if done < 0:
                    ended = self._hear(
                        mark,
                        lambda words: words[:2] in (["end", number], ["waits", number]),
                        min(deadline - self._now(), patience),
                    )
                    if _is_last(ended):
                        return ended
                if moved:
                    patience = _PATIENCE
                    self._piece = min(self._most, self._piece * 5 // 4)
                    if done >= 0:
                        continue
            else:
                self._piece = max(_SMALLEST, self._piece // 2)
            patience = min(_MOST_PATIENCE, patience * 2) if answer is None else patience
            if done < 0:
                # It runs; its last word may have been lost.
                self._type(f"@{self._session}", number, "e", "0", "-")
                since = mark

    def _output(self, since: int, size: int, digest: str, deadline: float, command: str) -> bytes:
        if size == 0:
            return b""
        raw = re.compile(rf"lab-{self._session} raw {self._number} ([A-Za-z0-9+/=]+)")
        lines = self._console.lines[since:]
        whole = _decoded("".join(found[1] for line in lines if (found := raw.search(line.text))))
        if hashlib.sha256(whole).hexdigest() == digest:
            return whole
        encoded = -(-size // 3) * 4
        for width in _WIDTHS:
            count = -(-encoded // width)
            pieces: dict[int, str] = {}
            barren = 0
            while len(pieces) < count and (barren < 4 or width == _WIDTHS[-1]):
                if self._now() > deadline:
                    raise MachineError(
                        f"{self._console.name}: the output of `{command}` did not arrive whole",
                        evidence=self._console.tail(),
                    )
                before = len(pieces)
                self._fetch(pieces, width, count, deadline)
                barren = 0 if len(pieces) > before else barren + 1
            whole = _decoded("".join(pieces[number] for number in sorted(pieces)))
            if hashlib.sha256(whole).hexdigest() == digest:
                return whole
        raise MachineError(
            f"{self._console.name}: the output of `{command}` did not arrive whole",
            evidence=self._console.tail(),
        )

    def _fetch(self, pieces: dict[int, str], width: int, count: int, deadline: float) -> None:
        """Ask once for lines of output that are still missing, and take what comes."""
        first = next(number for number in range(1, count + 1) if number not in pieces)
        last = first
        while last < min(count, first + 31) and last + 1 not in pieces:
            last += 1
        number, since = str(self._number), len(self._console.lines)
        self._type(f"@{self._session}", number, "o", str(first), f"{width},{last}")

        def wanted(words: list[str]) -> bool:
            if len(words) == 4 and words[:2] == ["out", number]:
                pieces[int(words[2])] = words[3]
                return int(words[2]) == last
            return False

        # 96 bytes more than it says in every line, at 1000 bytes a second.
        patience = _PATIENCE + (last - first + 1) * (width + 96) / 1000
        self._hear(since, wanted, min(patience, max(deadline - self._now(), 0.1)))

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
        deadline = self._now() + timeout
        while True:
            left = max(deadline - self._now(), 1)
            result = self.run(command, timeout=left)
            if result.code == 0:
                return result.output.removesuffix("\n")
            if self._now() + pause > deadline:
                raise ProductError(
                    f"{self._console.name}: `{command}` still exits {result.code} after "
                    f"{timeout * self._console.factor:.0f} s",
                    evidence=result.output[-2000:],
                )
            time.sleep(pause)

    def put(self, path: str, data: bytes, *, timeout: float = 60) -> None:
        """Write a file on the machine, block by block.

        Args:
            path: where, on the machine.
            data: its content.
            timeout: seconds for each block of 48 KiB.

        Raises:
            MachineError: what arrived is not what was sent.
        """
        target = shlex.quote(path)
        self.succeed(f": >{target}")
        for start in range(0, len(data), _BLOCK):
            code, said = self._run(f"cat >>{target}", data[start : start + _BLOCK], timeout)
            if code:
                raise ProductError(
                    f"{self._console.name}: cannot write {path}", evidence=said.decode(errors="replace")
                )
        self._same(path, data, "arrive")

    def get(self, path: str, *, timeout: float = 60) -> bytes:
        """Read a file of the machine, block by block.

        Args:
            path: where, on the machine.
            timeout: seconds for each block of 48 KiB.

        Raises:
            ProductError: there is no such file.
            MachineError: it changed meanwhile.
        """
        source = shlex.quote(path)
        size = int(self.succeed(f"wc -c <{source}"))
        data = b""
        for block in range(-(-size // _BLOCK)):
            read = f"dd if={source} bs={_BLOCK} skip={block} count=1 2>/dev/null"
            data += self._run(read, b"", timeout)[1]
        self._same(path, data, "leave")
        return data

    def _same(self, path: str, data: bytes, verb: str) -> None:
        found = self.succeed(f"sha256sum <{shlex.quote(path)}").split()[0]
        if found != hashlib.sha256(data).hexdigest():
            raise MachineError(f"{self._console.name}: {path} did not {verb} whole")


def _is_last(words: list[str] | None) -> TypeGuard[list[str]]:
    return words is not None and (words[:1] == ["waits"] or (words[:1] == ["end"] and len(words) == 5))


def _digest(text: str) -> str:
    return hashlib.sha256(f"{text}\n".encode("utf-8", "replace")).hexdigest()[:12]


def _check(words: str, text: str, then: str) -> str:
    return f"case $(echo {words}|sha256sum) in {_digest(text)}*){then};;esac"


def _run(words: str) -> str:
    return f'eval "$(echo {words}|base64 -d)"'


def _looks_answered(text: str) -> bool:
    return "lab-" in text and " raw " not in text and "@" not in text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
