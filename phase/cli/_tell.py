"""What commands say: results on standard output, everything else on standard error.

A line on standard error begins with `phase: `, so that it is told apart from a module's or a script's. The
exceptions are questions, and the one line that is overwritten while a terminal watches a fetch.
"""

import os
import sys

import click

from phase.errors import PhaseError, printable

#: Exit code: it is done, and standard output could not be told.
UNTOLD = 4


class UntoldError(PhaseError):
    """A command has done its work, and could not say so."""


def note(text: str) -> None:
    """Say something on standard error. Where that is gone, say nothing."""
    try:
        click.echo(f"phase: {printable(text)}", err=True)
    except OSError:
        _forget(2)


def _forget(descriptor: int) -> None:
    """Keep the interpreter from writing the buffered text again when it ends: it would end with 120."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


class Out:
    """The result of one command: lines for people, or one JSON object for scripts.

    Args:
        as_json: whether scripts read it.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        #: Whether the command has done its work: what cannot be printed from then on is only untold.
        self.done = False

    def line(self, text: str) -> None:
        """Print one line, for people only.

        Raises:
            PhaseError: standard output cannot be written; an UntoldError where the work is done.
        """
        if not self.as_json:
            self._print(printable(text))

    def show(self, text: str) -> None:
        """Show a person what is about to be done; where scripts read standard output, on standard error.

        Raises:
            PhaseError: standard output cannot be written.
        """
        (note if self.as_json else self.line)(text)

    def facts(self, facts: object, *, indent: int | None = None) -> None:
        """Print one JSON object, for scripts only.

        Args:
            facts: a struct, or plain values.
            indent: spaces; all in one line when None.

        Raises:
            PhaseError: standard output cannot be written; an UntoldError where the work is done.
        """
        if self.as_json:
            from phase.cli import as_json

            self._print(as_json(facts, indent=indent))

    def _print(self, text: str) -> None:
        try:
            click.echo(text)
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _forget(1)
            why = f"standard output cannot be written: {error.strerror or error}"
            if not self.done:
                raise PhaseError(why) from error
            raise UntoldError(f"it is done, but {why}; it would have said: {text}") from error
