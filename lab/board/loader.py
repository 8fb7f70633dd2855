"""Talks to a boot loader, on a line that may drop and garble what is said."""

import itertools
import re
import time

from lab.board.description import Loader
from lab.console import Console
from lab.errors import MachineError

#: Seconds a loader gets to show what was typed, or to come back to its prompt; then it is done again.
_PATIENCE = 2.0
#: Seconds between two keys that interrupt it; and every how many of them takes back what the others have
#: typed at a prompt that arrived garbled.
_AGAIN, _FRESH = 0.3, 8
_POLL = 0.02


def command(console: Console, loader: Loader, cmdline: str) -> None:
    """Type what a boot loader wants, from its start to the command that leaves it.

    Args:
        console: of a board that has just been switched on.
        loader: what it wants.
        cmdline: for the kernel.

    Raises:
        MachineError: it does not come to its prompt, or takes no command.
        MachineDied: the board died meanwhile.
    """
    deadline = time.monotonic() + loader.seconds * console.factor
    prompt = re.compile(f"(?:{loader.prompt})\\Z")
    # A busy one shows its prompt and the keys that have waited for it in one go, and those may be garbled.
    waited = "[^\r\n]*" if loader.erase else f"(?:{re.escape(loader.interrupt)})*"
    shown = re.compile(f"(?:{loader.prompt}){waited}\\Z")
    for number in itertools.count(1):
        if _comes(console, shown, 0, _AGAIN):
            break
        _check(console, deadline, f"no prompt {loader.prompt!r}")
        console.send(loader.interrupt if number % _FRESH else loader.erase or loader.interrupt)
    # The keys that came too late to interrupt anything.
    _take_back(console, loader, prompt, deadline)
    for number, text in enumerate(loader.commands, 1):
        line = text.replace("{cmdline}", cmdline)
        _type(console, loader, line, prompt, deadline)
        since = console.size
        console.send(loader.enter)
        if number == len(loader.commands):
            return
        while not _comes(console, prompt, since, _PATIENCE * console.factor):
            _check(console, deadline, f"no prompt after {line!r}")
            if _quiet(console, _PATIENCE):
                console.send(loader.enter)


def _type(console: Console, loader: Loader, line: str, prompt: re.Pattern[str], deadline: float) -> None:
    while True:
        since = console.size
        console.send(line)
        if not loader.echo:
            return
        shown = re.compile(re.escape(line) + r"\Z")
        if _comes(console, shown, since, _PATIENCE + len(line) / 1000):
            return
        _check(console, deadline, f"{line!r} never arrived whole")
        _take_back(console, loader, prompt, deadline)


def _take_back(console: Console, loader: Loader, prompt: re.Pattern[str], deadline: float) -> None:
    if not loader.erase:
        return
    while True:
        since = console.size
        console.send(loader.erase)
        if _comes(console, prompt, since, _PATIENCE):
            return
        _check(console, deadline, "no prompt after a line was taken back")


def _comes(console: Console, pattern: re.Pattern[str], since: int, seconds: float) -> bool:
    """Whether what was printed from a position on ends so, now or soon, and stays so for a moment."""
    until = time.monotonic() + seconds
    while True:
        text = console.since(since)
        if pattern.search(text):
            return True
        if console.death or console.closed:
            raise MachineError(
                f"{console.name}: {console.death or 'its console closed'} in its boot loader",
                evidence=console.tail(),
            )
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)


def _quiet(console: Console, seconds: float) -> bool:
    return time.monotonic() - console.heard > seconds


def _check(console: Console, deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise MachineError(
            f"{console.name}: its boot loader gives {what}",
            evidence="last lines on the console:\n" + console.tail(),
        )
