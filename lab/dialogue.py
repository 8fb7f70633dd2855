"""The dialogue with the agent on a machine (`lab.agent`): typing, hearing, and typing again.

Every line typed, and every line answered, carries a digest; what arrives garbled is asked for again.
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from lab.agent import DIRECTORY, SCRIPT, TOOLS
from lab.console import SILENCE, Console
from lab.errors import MachineError, WaitTimeout

#: Bytes that one typed line carries, at most and at least: halved whenever one arrives garbled.
PIECE, _SMALLEST = 1500, 48
#: Seconds to wait for an answer to one line before typing it again; doubled each time.
PATIENCE, _MOST_PATIENCE = 2.0, 16.0
#: Seconds that the agent has to end a command.
_HALT = 10.0
#: Bytes of input from which on it is sent in one stream.
_STREAM = 4096
#: Characters of a line of such a stream: a terminal that edits lines takes no more than 4095.
_STREAMED = 1024
#: Seconds to answer after the last byte of a stream, and bytes a second that it takes meanwhile.
_SETTLE, _RATE = 5.0, 4000
#: Seconds until the shell is greeted again; characters that one greeting line carries then, and before.
_GREETED, _SHORT, _LONG = 5.0, 200, 2000
_AGENT = base64.b64encode(SCRIPT.encode()).decode()
#: A shell that reads the terminal as a script: no echo, no prompt, no line editor. Without /proc
#: nothing says which terminal this is; then it is the console.
_SETUP = (
    'stty -echo -ixon 2>/dev/null;[ -t 0 ]&&{ t=$(tty 2>/dev/null);[ -c "$t" ]||t=/dev/console;'
    '[ -r "$t" ]&&sh "$t";}'
)
#: A garbled byte may have told the terminal to hold its output (^S). The space is for line editors that
#: have ^Q mean "take the next one as it is".
_RESUME = "\x11 "
_FRAME = re.compile(r"lab-(\w+ .*) ([0-9a-f]{12})(?![0-9a-f])")
_NAME_ASKED = re.compile(r"(?:login|user ?name): ?$", re.IGNORECASE)
_PASSWORD_ASKED = re.compile(r"password[^:]*: ?$", re.IGNORECASE)

#: A user and a password.
Login = tuple[str, str]


class Job(NamedTuple):
    """A command on its way.

    Attributes:
        command: for messages.
        text: of it; empty for one that waits there already.
        given: its input.
        deadline: on the dialogue's clock.
        start: the kind of message that starts it: `C`, or `S` for one that reads the terminal.
    """

    command: str
    text: bytes
    given: bytes
    deadline: float
    start: str = "C"


class End(NamedTuple):
    """How a command ended: its exit code, and the size and SHA-256 of its output.

    Attributes:
        waits: whether it has not ended, but waits for a line.
    """

    code: int
    size: int
    digest: str
    waits: bool = False


class Dialogue:
    """Asks the agent on a console, and believes only what has the digest that it names.

    Args:
        console: where.
        piece: bytes one typed line may carry.

    Attributes:
        session: its name; empty when there is none.
        number: of the last command.
    """

    def __init__(self, console: Console, piece: int) -> None:
        self.console = console
        self.session = ""
        self.number = 0
        self._most = self._piece = piece
        # A line that garbles would lose a stream, again and again.
        self._streams = piece >= PIECE

    def now(self) -> float:
        """A clock that goes slower on a slow host, as all the seconds here do."""
        return time.monotonic() / self.console.factor

    @property
    def position(self) -> int:
        """Lines that have come so far."""
        return len(self.console.lines)

    # --- the beginning ---

    def connect(self, timeout: float, login: Login | None = None) -> None:
        """Greet the agent; bring it to whatever shell is there if it is not.

        Args:
            timeout: seconds until it must have answered.
            login: for a machine that asks who is there.

        Raises:
            WaitTimeout: nothing answered.
            MachineError: the machine asks for a login that was not given, or refuses it; or its shell lacks
                what the agent needs.
        """
        deadline = self.now() + timeout
        self.session, self.number = secrets.token_hex(4), 0
        since = self.position
        attempt = 0
        while True:
            # A driver that starts its UART while much is being typed may never hear of a byte again (the
            # PL011's, whose interrupt comes with the first one only): type when somebody wants a line.
            self.console.wait_prompt(timeout=min(20.0, max(deadline - self.now(), 0)))
            if self._asks_for_login():
                self._log_in(login, deadline)
            self._greet(attempt)
            left = deadline - self.now()
            # Asked again now and then: what was typed before the shell was there may be lost.
            if self._is_ready(since, min(_GREETED, left)):
                self.console.answered = True
                self.console.session = self.session
                return
            if deadline - self.now() <= 0:
                raise WaitTimeout(
                    f"{self.console.name}: no shell answered within {timeout * self.console.factor:.0f} s",
                    evidence="last lines on the console:\n" + self.console.tail(),
                )
            attempt += 1

    def _is_ready(self, since: int, timeout: float) -> bool:
        lacks = re.compile(rf"lab-lacks-{self.session}-([0-9]+)((?: [a-z0-9]+)+)\.")
        # The question may have come garbled, and such a shell can check no digest: two answers must agree.
        told: dict[str, set[str]] = {}
        position = since

        def found() -> str | None:
            nonlocal position
            while position < self.position:
                text = self.console.lines[position].text
                position += 1
                if self.read(text) == ["ready"]:
                    return "ready"
                if claim := lacks.search(text):
                    attempt, lacking = claim.groups()
                    told.setdefault(lacking, set()).add(attempt)
                    if lacking.split() == [DIRECTORY]:
                        return lacking
                    if len(told[lacking]) > 1 and set(lacking.split()) <= set(TOOLS):
                        return lacking
            return None

        try:
            answer = self.console.wait(found, "answer", timeout=max(timeout, 0.01))
        except WaitTimeout:
            return False
        if answer.split() == [DIRECTORY]:
            raise MachineError(
                f"{self.console.name}: the shell there can write to none of /tmp, /run and /dev; "
                "the lab's needs one of them",
                evidence="last lines on the console:\n" + self.console.tail(),
            )
        if answer != "ready":
            raise MachineError(
                f"{self.console.name}: the shell there lacks{answer}; the lab's needs {', '.join(TOOLS)}",
                evidence="last lines on the console:\n" + self.console.tail(),
            )
        return True

    def _greet(self, attempt: int) -> None:
        """Greet the agent, and bring one to whatever shell is there if it is not; the agent ignores that."""
        send, session = self.console.send, self.session
        # A line that garbled a quote leaves a shell waiting for the other one. Not every time: a shell
        # that is left alone keeps the pieces which came whole.
        fresh = attempt % 3 == 1
        send(_RESUME + ("\x03\n" if fresh else "\n"))
        self.type("@hello", session, "h", "0", "-")
        if fresh or attempt == 0:
            send(f"{_SETUP}\n")
            # In two parts: the line itself, as the terminal echoes it, is not the answer.
            asked = f'for c in {" ".join(TOOLS)};do command -v $c >/dev/null 2>&1||m="$m $c";done'
            send(f"m=;{asked};[ -z \"$m\" ]||echo lab-la''cks-{session}-{attempt}$m.\n")
        # The kernel's log may be set too quiet for answers; then the terminal has to do.
        ready = f"sid={session};K={1 - attempt % 4 // 3};"
        names = ""
        width = _SHORT if attempt else _LONG
        for number, start in enumerate(range(0, len(_AGENT), width)):
            piece = _AGENT[start : start + width]
            send(f"B={piece};{_check('$B', piece, f'A{number}=$B')}\n")
            names += f"$A{number}"
        # What runs is what was checked: a name that garbles in this line would run a part of it.
        send(f"E={names};" + _check("$E", _AGENT, f'{ready}eval "$(echo $E|base64 -d)"') + "\n")

    def _asks_for_login(self) -> bool:
        last = self.console.tail(1)
        return bool(_NAME_ASKED.search(last) or _PASSWORD_ASKED.search(last))

    def _log_in(self, login: Login | None, deadline: float) -> None:
        name, last = self.console.name, self.console.tail(1)
        if login is None:
            raise MachineError(f'{name} asks for a login (`{last}`): shell(login=("user", "password"))')
        user, password = login
        if _NAME_ASKED.search(last):
            # An account without a password is not asked for one.
            self._enter(user, len(user), deadline)
        if _PASSWORD_ASKED.search(self.console.tail(1)):
            self._enter(password, 0, deadline)
        if self._asks_for_login():
            raise MachineError(f"{name} refuses the login of {user}", evidence=self.console.tail())

    def _enter(self, text: str, shown: int, deadline: float) -> None:
        """Type a line at the login, and wait until the machine has answered it and wants a line again.

        Args:
            text: the line.
            shown: how many of its characters the terminal echoes, besides the end of the line.
            deadline: on the dialogue's clock.
        """
        # Before it is typed: the answer may be there at once.
        since = self.console.size
        self.console.send(f"{text}\n")
        self.console.wait(
            lambda: True if self.console.size > since + shown + 2 else None,
            "answer to the login",
            timeout=max(deadline - self.now(), 0.01),
        )
        # login(1) waits some seconds after a wrong password.
        self.console.wait_prompt(timeout=min(20.0, max(deadline - self.now(), 0)))

    # --- a line there, a line back ---

    def type(self, *words: str) -> None:
        """Type a message, with its digest."""
        text = " ".join(words)
        self.console.send(f"{text} {digest(text)}\n")

    def ask(self, kind: str, place: str = "0", payload: str = "-") -> None:
        """Type a message about the last command."""
        self.type(f"@{self.session}", str(self.number), kind, place, payload)

    def hear(
        self, since: int, wanted: Callable[[list[str]], bool], timeout: float, *, garbled: bool = False
    ) -> list[str] | None:
        """Wait for an answer.

        Args:
            since: lines to pass over.
            wanted: says whether it is one.
            timeout: seconds.
            garbled: whether one that cannot be read ends the wait, too.

        Returns:
            Its words; none when it cannot be read; None when none came.
        """
        position = since

        def found() -> list[str] | None:
            nonlocal position
            while position < self.position:
                text = self.console.lines[position].text
                position += 1
                words = self.read(text)
                if words is not None and wanted(words):
                    return words
                if garbled and (words == ["nak"] or (words is None and _looks_answered(text))):
                    return []
            return None

        try:
            return self.console.wait(found, "answer", timeout=max(timeout, 0.01))
        except WaitTimeout:
            return None

    def read(self, text: str) -> list[str] | None:
        """The words of an answer in a line; None when there is none whose digest holds."""
        frame = _FRAME.search(text)
        if frame is None or digest(frame[1]) != frame[2]:
            return None
        session, *words = frame[1].split(" ")
        return words if session == self.session else None

    # --- a command ---

    def finish(self, job: Job) -> End:
        """Type a command until it runs, and wait for its end.

        Raises:
            WaitTimeout: it did not end in time.
            MachineDied: the machine died, or has not said a byte to what was typed.
        """
        since = self.position
        return self._deliver(job) or self.await_end(since, job)

    def _deliver(self, job: Job) -> End | None:
        """Type a command and its input, piece by piece, until it runs; returns its end if that came."""
        whole = job.text + job.given
        place, patience = 0, PATIENCE
        begun = time.monotonic()
        while True:
            # Until it runs, an answer is due to whatever is typed; then it may be silent as it likes.
            self.console.check_silence(begun, SILENCE, f"typing `{job.command}`")
            left = self._left(job)
            if self._streams and place == len(job.text) and len(job.given) >= _STREAM:
                place = self._stream(job, left)
            mark = self.position
            self._type_piece(job, whole, place)
            answer = self.hear(mark, self._is_about, min(left, patience), garbled=True)
            if end := _end(answer):
                return end
            if answer:
                there = int(answer[2])
                if there < 0:
                    return None
                if there != place:
                    place, patience = there, PATIENCE
                    self._piece = min(self._most, self._piece * 5 // 4)
            else:
                self._piece = max(_SMALLEST, self._piece // 2)
                if answer is None:
                    patience = min(_MOST_PATIENCE, patience * 2)

    def _type_piece(self, job: Job, whole: bytes, place: int) -> None:
        of_input = place >= len(job.text) > 0 and bool(job.given)
        until = len(whole) if of_input else len(job.text)
        piece = whole[place : min(place + self._piece, until)]
        kind = "i" if of_input else "c"
        if place + len(piece) == len(whole):
            kind = "I" if of_input else job.start
        self.ask(kind, str(place), f"{len(piece)},{base64.b64encode(piece).decode()}")

    def _stream(self, job: Job, left: float) -> int:
        """Send all of the input in one stream; returns the place from which on bytes are missing."""
        encoded = base64.b64encode(job.given).decode()
        lines = "".join(
            f"{encoded[start : start + _STREAMED]}\n" for start in range(0, len(encoded), _STREAMED)
        )
        before = len(job.text)
        told = hashlib.sha256(job.given).hexdigest()[:12]
        mark, number = self.position, str(self.number)
        self.ask("b", str(before), f"{len(lines)},{len(job.given)},{told}")
        if self.hear(mark, lambda words: words[:2] == ["send", number], min(left, _SETTLE)):
            mark = self.position
            self.console.send(lines)
            answer = self.hear(mark, self._is_about, min(left, _SETTLE + len(lines) / _RATE))
            if answer is not None and answer[0] == "got" and int(answer[2]) > before:
                return int(answer[2])
        # Bytes were lost, on the way there or of the answer. What the agent still waits for comes now, so
        # that it reads lines again; from here on each line has its digest.
        self._streams = False
        self.console.send("\n" * len(lines))
        return before

    def await_end(self, since: int, job: Job) -> End:
        """Wait until a command that runs has ended, or waits for a line.

        Args:
            since: lines to pass over.
            job: the command.

        Raises:
            WaitTimeout: it did not.
        """
        patience = PATIENCE
        while True:
            answer = self.hear(since, self._is_end, min(self._left(job), patience), garbled=True)
            if end := _end(answer):
                return end
            if answer is None:
                patience = min(_MOST_PATIENCE, patience * 2)
            # It runs; its last word may have been lost.
            since = self.position
            self.ask("e")

    def halt(self) -> bool:
        """End the command that runs, with all it has started; returns whether that is so."""
        mark = self.position
        deadline = self.now() + _HALT
        while (left := deadline - self.now()) > 0:
            self.ask("k")
            answer = self.hear(mark, self._is_end, min(left, PATIENCE), garbled=True)
            if answer:
                return True
            mark = self.position
        return False

    def _left(self, job: Job) -> float:
        left = job.deadline - self.now()
        if left <= 0:
            raise WaitTimeout(
                f"{self.console.name}: `{job.command}` did not end in time",
                evidence="last lines on the console:\n" + self.console.tail(),
            )
        return left

    def _is_about(self, words: list[str]) -> bool:
        return words[0] in ("got", "end", "waits") and words[1:2] == [str(self.number)]

    def _is_end(self, words: list[str]) -> bool:
        return words[0] in ("end", "waits") and words[1:2] == [str(self.number)]


def digest(text: str) -> str:
    """What follows a line: the beginning of its SHA-256."""
    return hashlib.sha256(f"{text}\n".encode("utf-8", "replace")).hexdigest()[:12]


def _end(words: list[str] | None) -> End | None:
    match words:
        case ["waits", *_]:
            return End(0, 0, "-", waits=True)
        case ["end", _, code, size, told]:
            return End(int(code), int(size), told)
        case _:
            return None


def _check(words: str, text: str, then: str) -> str:
    return f"case $(echo {words}|sha256sum) in {digest(text)}*){then};;esac"


def _looks_answered(text: str) -> bool:
    return "lab-" in text and " raw " not in text and "@" not in text
