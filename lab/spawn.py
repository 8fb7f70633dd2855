"""pexpect on a console: dialogues with a boot loader, a menu, a program that asks."""

import codecs
from typing import TYPE_CHECKING, Any, Protocol

from pexpect import EOF, TIMEOUT
from pexpect.spawnbase import SpawnBase

from lab.errors import MachineDied, WaitTimeout

if TYPE_CHECKING:
    _Base = SpawnBase[str]
else:
    # Generic in its stubs only.
    _Base = SpawnBase

#: Characters back from the newest that a pattern is searched in: matching stays cheap however much comes.
_WINDOW = 16 << 10


class Source(Protocol):
    """What a console offers to read from; `lab.console.Console` is one."""

    name: str
    factor: float
    death: str
    closed: bool

    def read_from(self, position: int, size: int, timeout: float) -> bytes:
        """Bytes from a position on."""

    def send(self, text: str) -> None:
        """Type."""

    def tail(self, lines: int = 40) -> str:
        """The last lines."""


class ConsoleSpawn(_Base):
    """pexpect over what a console's reader keeps: expecting here takes nothing from other readers.

    Its `expect` family raises the lab's errors where pexpect's would come, unless the patterns name those.
    """

    def __init__(self, source: Source, position: int, *, timeout: float = 30) -> None:
        super().__init__(timeout=timeout, encoding="utf-8", codec_errors="replace", searchwindowsize=_WINDOW)
        self._source = source
        self._position = position
        # Its own decoder is private to pexpect.
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
        """What pexpect calls to read on."""
        seconds = self.timeout if timeout == -1 else timeout
        data = self._source.read_from(self._position, size, 86_400 if seconds is None else max(seconds, 0))
        if not data:
            if self._source.death or self._source.closed:
                raise EOF(self._source.death or "the console closed")
            raise TIMEOUT("nothing more on the console")
        self._position += len(data)
        return self._characters.decode(data)

    def expect_list(self, pattern_list: Any, timeout: float | None = -1, *args: Any, **options: Any) -> Any:
        """As pexpect's; every `expect` comes through here."""
        return self._judged(super().expect_list, pattern_list, timeout, args, options)

    def expect_exact(self, pattern_list: Any, timeout: float | None = -1, *args: Any, **options: Any) -> Any:
        """As pexpect's: plain strings instead of patterns."""
        return self._judged(super().expect_exact, pattern_list, timeout, args, options)

    def _judged(self, expect: Any, patterns: Any, timeout: float | None, args: Any, options: Any) -> Any:
        evidence = "last lines on the console:\n"
        seconds = self.timeout if timeout == -1 else timeout
        try:
            return expect(patterns, seconds and seconds * self._source.factor, *args, **options)
        except TIMEOUT as error:
            what = f"{self._source.name}: none of {patterns!r} came"
            raise WaitTimeout(what, evidence=evidence + self._source.tail()) from error
        except EOF as error:
            what = f"{self._source.name}: {self._source.death or f'switched off before any of {patterns!r}'}"
            raise MachineDied(what, evidence=evidence + self._source.tail()) from error

    def send(self, s: str) -> int:
        """Type; returns the number of characters."""
        self._source.send(s)
        return len(s)

    def sendline(self, s: str = "") -> int:
        """Type a line."""
        return self.send(f"{s}\n")
