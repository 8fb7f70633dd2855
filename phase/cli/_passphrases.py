"""Where passphrases of keys and PINs of tokens come from. Each source is read once: it may be a pipe."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from phase.release.errors import KeysError

#: Holds the passphrase, where nobody is there to type it.
ENVIRONMENT = "PHASE_RELEASE_PASSPHRASE"
#: Bytes of one passphrase.
MAX_PASSPHRASE = 1024
_META = "phase.release.passphrases"


class Passphrases:
    """The passphrases of one command.

    Args:
        file: holds the passphrase, if there is such a file.
        environment: holds it otherwise, as `ENVIRONMENT`.
    """

    def __init__(self, file: Path | None, environment: Mapping[str, str]) -> None:
        self._file = file
        self._variable = environment.get(ENVIRONMENT)
        self._given: str | None = None

    @classmethod
    def of_command(cls, file: Path | None) -> "Passphrases":
        """Those of the command that runs, whichever part of it asks."""
        context = click.get_current_context()
        found: Passphrases = context.meta.setdefault(_META, cls(file, os.environ))
        return found

    def new(self, path: Path) -> str:
        """The passphrase of a key that is made; typed twice, because a slip would lose the key.

        Raises:
            KeysError: there is none, or it cannot be one.
        """
        given = self._from_elsewhere(path)
        return self._typed(path, again=True) if given is None else given

    def of(self, path: Path) -> str:
        """The passphrase of a key.

        Raises:
            KeysError: there is none, or it cannot be one.
        """
        given = self._from_elsewhere(path)
        return self._typed(path, again=False) if given is None else given

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

    def _typed(self, path: Path, *, again: bool) -> str:
        answer = click.prompt(f"Passphrase of {path}", hide_input=True, confirmation_prompt=again, err=True)
        return checked(answer, "what was typed")


def checked(text: str, source: str) -> str:
    """A passphrase without the end of its line.

    Args:
        text: as it was read.
        source: where from, for people.

    Raises:
        KeysError: nothing is in it, or something that nobody has typed as a passphrase.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    if not line.strip():
        raise KeysError(
            f"the passphrase in {source} is empty",
            hint="Is a secret not set? A key without a passphrase is made with --plain.",
        )
    if len(line) > MAX_PASSPHRASE:
        raise KeysError(f"the passphrase in {source} has more than {MAX_PASSPHRASE} characters")
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
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_PASSPHRASE * 4 + 1)
    except OSError as error:
        raise KeysError(f"{file} cannot be read: {error.strerror}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise KeysError(f"{file} is UTF-16 text, or no text", hint="Save it as UTF-8 text.")
    try:
        return checked(data.decode("utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise KeysError(f"{file} is not UTF-8 text", hint="Save it as UTF-8 text.") from error
