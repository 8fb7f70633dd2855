"""Where passphrases of keys and PINs of tokens come from. Each source is read once: it may be a pipe."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from phase.cli import _given
from phase.errors import printable
from phase.release.errors import KeysError
from phase.release.keys import Place

#: Environment variable that holds the passphrase, for unattended use.
ENVIRONMENT = "PHASE_RELEASE_PASSPHRASE"
#: Bytes of one passphrase.
MAX_PASSPHRASE = 1024
_META, _PINS = "phase.release.passphrases", "phase.release.pin-files"


class Passphrases:
    """The passphrases and PINs of one command.

    Args:
        file: holds the passphrase, if there is such a file.
        environment: holds it otherwise, as `ENVIRONMENT`.
        pin_files: hold the PINs of tokens, by label.
    """

    def __init__(
        self, file: Path | None, environment: Mapping[str, str], pin_files: Mapping[str, Path]
    ) -> None:
        self._file = file
        self._variable = environment.get(ENVIRONMENT)
        self._given: str | None = None
        self._pin_files = pin_files
        #: PINs by token, (module, label); None where only the passphrase could be one.
        self._pins: dict[tuple[str, str], str | None] = {}
        #: A key that the passphrase is for.
        self._sealed: Path | None = None

    @classmethod
    def of_command(cls, file: Path | None) -> "Passphrases":
        """Those of the command that runs, whichever part of it asks."""
        meta = click.get_current_context().meta
        if _META not in meta:
            meta[_META] = cls(file, os.environ, meta.get(_PINS, {}))
        found: Passphrases = meta[_META]
        return found

    @property
    def at_hand(self) -> bool:
        """Whether somebody or something gives passphrases."""
        given = self._file is not None or self._variable is not None or bool(self._pin_files)
        return given or sys.stdin.isatty()

    def new(self, path: Path) -> str:
        """The passphrase of a key that is made; typed twice, because a slip would lose the key.

        Raises:
            KeysError: there is none, or it cannot be one.
        """
        given = self._from_elsewhere(path)
        return self._typed(f"Passphrase of {path}", again=True) if given is None else given

    def of(self, path: Path) -> str:
        """The passphrase of a key.

        Raises:
            KeysError: there is none, or it cannot be one.
        """
        self._sealed = path
        given = self._from_elsewhere(path)
        return self._typed(f"Passphrase of {path}") if given is None else given

    def pin(self, path: Path, place: Place) -> Callable[[], str]:
        """A function that gives the PIN of a token when its key signs; a person who types it is asked now.

        The passphrase counts as the PIN only where it can be meant for nothing else: tokens lock
        themselves after a few wrong ones.

        Args:
            path: the key.
            place: where it is.

        Raises:
            KeysError: there is none, or it cannot be one.
        """
        token = (place.module, place.token)
        if token not in self._pins:
            self._pins[token] = self._read_pin(path, place.token)
        return lambda: self._pin(token)

    def _read_pin(self, path: Path, label: str) -> str | None:
        if label in self._pin_files:
            return _read(self._pin_files[label])
        if self._file is not None or self._variable is not None:
            self._from_elsewhere(path)
        elif sys.stdin.isatty():
            return self._typed(f"PIN of token {label}")
        return None

    def _pin(self, token: tuple[str, str]) -> str:
        found, label = self._pins[token], token[1]
        if found is not None:
            return found
        hint = f"Give --pin-file {label}=FILE."
        if self._given is None:
            raise KeysError(f"token {label!r} needs its PIN", hint=hint)
        others = [f"token {each!r}" for _, each in self._pins if each != label]
        if self._sealed is not None:
            others.append(f"key {self._sealed}")
        if others:
            raise KeysError(
                f"the PIN of token {label!r} is not given: the passphrase may be that of {others[0]}",
                hint=hint,
            )
        return self._given

    def _from_elsewhere(self, path: Path) -> str | None:
        """What the file or the variable holds; None where there is neither, and somebody can type."""
        if self._given is None:
            if self._file is not None:
                self._given = _read(self._file)
            elif self._variable is not None:
                self._given = checked(self._variable, f"${ENVIRONMENT}")
            elif not sys.stdin.isatty():
                raise KeysError(
                    f"key {path} needs a passphrase", hint=f"Give --passphrase-file, or set {ENVIRONMENT}."
                )
        return self._given

    def _typed(self, question: str, *, again: bool = False) -> str:
        answer = click.prompt(printable(question), hide_input=True, confirmation_prompt=again, err=True)
        return checked(answer, "what was typed")


def new_of(path: Path, file: Path | None) -> str:
    """A new passphrase for a key that has one already.

    Args:
        path: the key.
        file: holds it; else it is typed, twice.

    Raises:
        KeysError: there is none, or it cannot be one.
    """
    if file is not None:
        return _read(file)
    if not sys.stdin.isatty():
        raise KeysError(f"key {path} needs a new passphrase", hint="Give --new-passphrase-file.")
    question = printable(f"New passphrase of {path}")
    return checked(
        click.prompt(question, hide_input=True, confirmation_prompt=True, err=True), "what was typed"
    )


def note_pin_files(context: click.Context, _: click.Parameter, given: tuple[str, ...]) -> None:
    """Keep what `--pin-file` says, for `Passphrases.of_command`.

    Raises:
        click.BadParameter: one is not TOKEN=FILE.
    """
    found = {}
    for each in given:
        label, equals, file = each.rpartition("=")
        if not equals or not label or not file:
            raise click.BadParameter(f"{each!r} is not TOKEN=FILE")
        found[label] = Path(file)
    context.meta[_PINS] = found


def checked(text: str, source: str) -> str:
    """A passphrase without the end of its line.

    Args:
        text: as it was read.
        source: where from, for people.

    Raises:
        KeysError: it is empty, or holds what cannot be a passphrase.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    if not line.strip():
        raise KeysError(
            f"{source} is empty, no passphrase or PIN is in it",
            hint="Is a secret not set? Only --plain makes a key without a passphrase.",
        )
    if len(line) > MAX_PASSPHRASE:
        raise KeysError(f"{source} is too long; the limit is {MAX_PASSPHRASE} characters")
    if line.startswith("\ufeff"):
        raise KeysError(
            f"{source} begins with a byte order mark", hint="Save it as UTF-8 without one (no BOM)."
        )
    if "\n" in line or "\r" in line:
        raise KeysError(f"{source} has several lines", hint="A passphrase is one line.")
    if not line.isprintable():  # surrogates, too: bytes of the variable that are not UTF-8
        raise KeysError(
            f"the passphrase in {source} has characters that cannot be printed",
            hint="Save it as UTF-8 text.",
        )
    return line


def _read(file: Path) -> str:
    data = _given.read(file, "", MAX_PASSPHRASE * 4, kind=KeysError)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise KeysError(f"{file} is not UTF-8 text, it looks like UTF-16", hint="Save it as UTF-8 text.")
    try:
        return checked(data.decode("utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise KeysError(f"{file} is not UTF-8 text", hint="Save it as UTF-8 text.") from error
