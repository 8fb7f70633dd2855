"""`phase config`: what holds for each option, and who says so."""

import importlib
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase.cli import COMMANDS, FAILED, _configuration, _options, printable
from phase.cli._tell import Out

if TYPE_CHECKING:
    from phase.cli.facts import Setting


@click.group("config")
def command() -> None:
    """Show the configuration: files, environment and defaults."""


@command.command("show")
@click.argument("commands", nargs=-1, metavar="[COMMAND]...")
@_options.option("--changed", is_flag=True, once=True, help="Leave out what has its default.")
@_options.as_json
@click.pass_context
def show(ctx: click.Context, commands: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """Say for each option what holds, and where that comes from: of every COMMAND, such as serve or release.

    Ends with 1 if a value cannot be used.
    """
    from phase.cli.facts import Settings

    if unknown := set(commands) - set(COMMANDS):
        raise click.UsageError(f"there is no command {min(unknown)!r}")
    read = _configuration.of(ctx)
    settings = [
        each for name in COMMANDS if not commands or name in commands for each in _settings(ctx, name)
    ]
    if changed:
        settings = [each for each in settings if each.problem or each.source != "default"]
    out = Out(as_json)
    out.facts(Settings(files=[str(path) for path, _ in read.files], settings=settings))
    for path, _ in read.files:
        out.line(f"read {path}")
    for each in settings:
        out.line(_line(each))
    if any(each.problem for each in settings):
        sys.exit(FAILED)


def _line(each: "Setting") -> str:
    value = "-" if each.value is None else each.value
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    line = f"{each.command} {each.option} {shown}  ({each.source})"
    return f"{line}: cannot be used: {each.problem}" if each.problem else line


def walk(name: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The commands below a name of `COMMANDS`, and it itself where it is one.

    Args:
        name: `serve`, or `release`.
    """
    yield from _below((name,), importlib.import_module(COMMANDS[name][0]).command)


def _below(place: tuple[str, ...], found: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(found, click.Group):
        yield place, found
        return
    for name, each in sorted(found.commands.items()):
        yield from _below((*place, name), each)


def _settings(ctx: click.Context, name: str) -> Iterator["Setting"]:
    root = ctx.find_root()
    for place, found in walk(name):
        context = root
        group = importlib.import_module(COMMANDS[name][0]).command
        if len(place) > 1:
            context = click.Context(group, parent=root, info_name=name)
        context = click.Context(found, parent=context, info_name=place[-1])
        for option in found.params:
            if isinstance(option, _options.Option) and not option.once:
                yield _setting(context, place, option)


def _setting(ctx: click.Context, place: tuple[str, ...], option: _options.Option) -> "Setting":
    from phase.cli.facts import Setting

    problem, value = None, None
    try:
        # As it was given: what the command makes of it may be an object of its own.
        value, _ = option.consume_value(ctx, {})
        option.handle_parse_result(ctx, {}, [])
    except click.MissingParameter:
        pass
    except click.BadParameter as error:
        problem = printable(error.message)
    # Click has a member of an Enum for what is not set.
    if value in (None, ()) or isinstance(value, Enum):
        value = option.standard or None
    return Setting(
        command=" ".join(place),
        option=option.opts[0],
        value=_plain(value),
        source=option.source(ctx),
        problem=problem,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
