"""The `phase` command. A subcommand's module is imported only when it is used.

Each module named below holds a click command called `command`.
"""

import errno
import importlib
import json
import os
import sys
from typing import NoReturn

import click

from phase.errors import PhaseError
from phase.errors import printable as printable  # for the commands

#: Name -> module, and its line in `phase --help`, which must not import them all.
COMMANDS = {
    "discover": ("phase.cli.discover", "Look for providers on this network."),
    "fetch": ("phase.cli.fetch", "Fetch a release and verify it."),
    "init": ("phase.cli.init", "Give this machine an identity."),
    "node": ("phase.cli.node", "Run this machine's node."),
    "provider": ("phase.cli.provider", "Ask providers how they are."),
    "receipt": ("phase.cli.receipt", "Verify receipts."),
    "release": ("phase.cli.release", "Sign releases and publish them."),
    "run": ("phase.cli.run", "Run a WebAssembly module here and now."),
    "serve": ("phase.cli.serve", "Serve releases to machines that boot."),
    "verify": ("phase.cli.verify", "Verify a fetched release again."),
    "version": ("phase.cli.version", "Say which version this is."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, for the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one that is used."""
        if cmd_name not in COMMANDS:
            return None
        try:
            found: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        except KeyboardInterrupt:
            if cmd_name == "run":
                sys.exit(130)  # click would end with 1, which may be the module's
            raise
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup)
def cli() -> None:
    """Boot machines from whoever nearby has the bits, and put them to work."""


def main() -> NoReturn:
    """Run the command line: exit code 0 done, 1 refused or failed, 2 usage."""
    open_standard_streams()
    try:
        cli(prog_name="phase", standalone_mode=True)
    except PhaseError as error:
        click.echo(f"phase: {printable(str(error))}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read us has left; without this the interpreter complains again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        # A disk that is full or not ours, for example: nothing a traceback would explain better.
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = PhaseError(f"{where}{error.strerror or error}", hint="Make room there." if full else "")
        click.echo(f"phase: {printable(str(what))}", err=True)
        sys.exit(1)
    sys.exit(0)


def open_standard_streams() -> None:
    """Give every command the three standard streams, also where the caller closed them.

    A closed one reads as empty and drops what is written. Without this, Python has None in its place, and
    the next file that is opened gets its number: what a module prints would go there.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
    # They stay open until the process ends, as Python's own do.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def as_json(value: object, *, indent: int | None = None) -> str:
    """JSON of a struct or of plain values, in printable ASCII, so that it cannot steer a terminal either."""
    import msgspec

    return json.dumps(msgspec.to_builtins(value), indent=indent).replace("\x7f", "\\u007f")
