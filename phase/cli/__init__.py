"""The `phase` command. A subcommand's module is imported only when it is used.

Each module named below holds a click command called `command`.
"""

import errno
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from phase.cli._tell import UNTOLD, UntoldError, note
from phase.errors import PhaseError
from phase.errors import printable as printable  # for the commands

#: Name -> module, and its line in `phase --help`, which must not import them all.
COMMANDS = {
    "config": ("phase.cli.config", "Show the configuration."),
    "discover": ("phase.cli.discover", "Look for providers on this network."),
    "fetch": ("phase.cli.fetch", "Fetch a release and verify it."),
    "init": ("phase.cli.init", "Give this machine an identity."),
    "job": ("phase.cli.job", "Give jobs to nodes."),
    "netboot": ("phase.cli.netboot", "Tell machines what to boot, beside their DHCP server."),
    "node": ("phase.cli.node", "Take jobs from peers."),
    "peers": ("phase.cli.peers", "Look for nodes that take jobs."),
    "provider": ("phase.cli.provider", "Ask providers how they are."),
    "receipt": ("phase.cli.receipt", "Verify receipts."),
    "release": ("phase.cli.release", "Sign releases and publish them."),
    "run": ("phase.cli.run", "Run a WebAssembly module here and now."),
    "serve": ("phase.cli.serve", "Serve releases to machines that boot."),
    "update": ("phase.cli.update", "Start a newer release of this system."),
    "verify": ("phase.cli.verify", "Verify a fetched release again."),
    "version": ("phase.cli.version", "Say which version this is."),
}
#: Exit codes of every command but `phase run` and `phase job`, which leave the module's own.
FAILED, USAGE, INTERRUPTED = 1, 2, 130
#: What they mean, for people.
EXIT_CODES = {
    0: "done",
    FAILED: "refused or failed, with the reason on standard error; nothing has changed",
    USAGE: "typed wrongly",
    3: "`release refresh`, `renew`, `status`: done, but somebody else must renew a signature soon",
    UNTOLD: "done, but standard output cannot be written; standard error has what it would have",
    INTERRUPTED: "interrupted by Ctrl-C",
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
                sys.exit(INTERRUPTED)  # click would end with 1, which may be the module's
            raise
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from phase.cli.version import facts, text

        click.echo(text(facts()))
        ctx.exit()


@click.group(
    "phase",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog='Completion: put `eval "$(_PHASE_COMPLETE=bash_source phase)"` into ~/.bashrc; zsh_source and '
    "fish_source for those shells.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="PHASE_CONFIG",
    metavar="FILE",
    help="Configuration that counts before the user's and the system's.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the versions."
)
def cli(config: Path | None) -> None:
    """Boot machines over the network from any provider nearby, and run jobs on them."""


def main() -> NoReturn:
    """Run the command line: exit code 0 done, 1 refused or failed, 2 usage."""
    open_standard_streams()
    try:
        ended: Any = cli(prog_name="phase", standalone_mode=False)
        # What click returns after --help and --version is a code; what a command returns is None.
        sys.exit(ended if isinstance(ended, int) else 0)
    except click.ClickException as error:
        sys.exit(usage(error))
    except click.Abort:
        note("interrupted")
        sys.exit(INTERRUPTED)
    except UntoldError as error:
        note(str(error))
        sys.exit(UNTOLD)
    except PhaseError as error:
        note(str(error))
        sys.exit(FAILED)
    except BrokenPipeError:
        # The reader of our output has left; without this the interpreter complains again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(FAILED)
    except OSError as error:
        # A disk that is full or not ours, for example: nothing a traceback would explain better.
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        note(str(PhaseError(f"{where}{error.strerror or error}", hint="Make room there." if full else "")))
        sys.exit(FAILED)


def usage(error: click.ClickException) -> int:
    """Say what was typed wrongly; the exit code for it."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    context = getattr(error, "ctx", None)
    hint = f"See `{context.command_path} --help`." if context is not None else ""
    note(str(PhaseError(error.format_message(), hint=hint)))
    return error.exit_code


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
