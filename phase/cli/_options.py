"""Options. One word has one meaning in every command, one unit, and one place in the configuration.

Help shows each default with its unit. What is not on the command line may be in the environment or in a
configuration file, see `phase.cli._configuration`.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from phase import modes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

#: A file, and a directory, that must be there.
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
#: A file or directory that may be made.
PLACE = click.Path(path_type=Path)


class Option(click.Option):
    """An option that the configuration may hold.

    Args:
        arguments: as for click.
        unit: of its values, for the help.
        standard: what holds where it is not given, if that is not its default.
        once: whether it is for the command line alone, because it is about one use of the command.
        more: as for click.
    """

    def __init__(
        self,
        *arguments: Any,
        unit: str = "",
        standard: str | Callable[[], str] = "",
        once: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self.unit = unit
        self.once = once
        self._standard = standard

    @property
    def word(self) -> str:
        """Its name without the dashes."""
        return self.opts[0].lstrip("-")

    @property
    def standard(self) -> str:
        """What holds where it is not given, for people; empty where that is its default."""
        return self._standard() if callable(self._standard) else self._standard

    def variables(self, place: tuple[str, ...]) -> list[str]:
        """The variables that may hold it, the first that does counts.

        Args:
            place: the command: `("release", "add")`.
        """
        if self.once:
            return []
        return [variable((*place[:end], self.word)) for end in range(len(place), -1, -1)]

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value of the first variable that is set and not empty."""
        values = (os.environ.get(name) for name in self.variables(place_of(ctx)))
        return next(filter(None, values), None)

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, click.Parameter]
    ) -> tuple[Any, ParameterSource]:
        """The value: of the command line, the environment, a file, or the default."""
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.DEFAULT and not self.once:
            from phase.cli import _configuration

            found = _configuration.of(ctx).find(place_of(ctx), self.word)
            if found is not None:
                return self._from_file(found), ParameterSource.DEFAULT_MAP
        return value, source

    def _from_file(self, found: Any) -> Any:
        try:
            value = found.for_option(
                flag=self.is_flag and not self.count, several=self.multiple or self.nargs != 1
            )
        except ValueError as error:
            raise click.BadParameter(f"{error} ({found.where})", param=self) from error
        if not isinstance(self.type, click.Path):
            return value
        # A relative path counts from the file that names it, wherever the command runs.
        beside = found.file.absolute().parent
        several = value if isinstance(value, tuple) else (value,)
        paths = tuple(each if each == "-" else str(beside / each) for each in several)
        return paths if isinstance(value, tuple) else paths[0]

    def source(self, ctx: click.Context) -> str:
        """Where its value in a context comes from: default, command line, a variable, or a file."""
        from phase.cli import _configuration

        origin = ctx.get_parameter_source(self.name or "")
        if origin is ParameterSource.ENVIRONMENT:
            return next(name for name in self.variables(place_of(ctx)) if os.environ.get(name))
        if origin is ParameterSource.DEFAULT_MAP:
            found = _configuration.of(ctx).find(place_of(ctx), self.word)
            return found.where if found is not None else "configuration"
        return "command line" if origin is ParameterSource.COMMANDLINE else "default"

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Parse it; an error says where the value came from."""
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:
            where = self.source(ctx)
            if where in ("default", "command line") or f"({where})" in error.message:
                raise
            message = f"{error.message.rstrip('.')} ({where})"
            raise click.BadParameter(message, ctx=error.ctx, param=error.param) from error

    def get_help_extra(self, ctx: click.Context) -> Any:
        """The default is shown with its unit."""
        extra = super().get_help_extra(ctx)
        default = extra.get("default", "")
        if isinstance(self.default, float):
            default = f"{self.default:g}"
        default = self.standard or (default and f"{default} {self.unit}".rstrip())
        if default:
            extra["default"] = default
        if "range" in extra:
            extra["range"] = extra["range"].replace("<=x<=", " to ")
        return extra


def option(*arguments: Any, **more: Any) -> Callable[[Any], Any]:
    """As `click.option`, see `Option`."""
    return click.option(*arguments, cls=Option, **more)


def grouped(
    name: str, kind: type["DataclassInstance"], *options: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Options that a command gets as one object.

    Args:
        name: of the command's parameter.
        kind: the dataclass; its fields are called as the options' parameters.
        options: as decorators, in the order of the help.
    """
    fields = [field.name for field in dataclasses.fields(kind)]

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def called(*args: Any, **more: Any) -> Any:
            more[name] = kind(**{field: more.pop(field) for field in fields})
            return command(*args, **more)

        decorated: Any = called
        for each in reversed(options):
            decorated = each(decorated)
        return decorated

    return decorate


def variable(words: tuple[str, ...]) -> str:
    """The name of the variable for words: `PHASE_SERVE_PORT`."""
    return "_".join(("phase", *words)).replace("-", "_").upper()


def place_of(ctx: click.Context) -> tuple[str, ...]:
    """The command of a context: `("release", "add")`."""
    names: list[str] = []
    step: click.Context | None = ctx
    while step is not None:
        names.insert(0, step.command.name or "")
        step = step.parent
    return tuple(name for name in names if name != "phase")


# Those that several commands have.

mode = option(
    "--mode",
    type=click.Choice(modes.NAMES),
    default=modes.INTERNET.name,
    help="What this machine may do on networks.",
)
channel = option("--channel", default="stable", metavar="NAME", help="Channel of the release.")
arch = option("--arch", default="auto", metavar="NAME", help="Architecture; auto is this machine's.")
as_json = option("--json", "as_json", is_flag=True, help="Print a JSON object.")
as_json_lines = option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")
state = option(
    "--state",
    type=PLACE,
    metavar="DIRECTORY",
    standard="/var/lib/phase for root, ~/.local/state/phase for others",
    help="Directory of this machine's state: its identity, and what `phase serve` signs.",
)


def timeout(seconds: float, least: float, most: float) -> Callable[[Any], Any]:
    """The option for how long it may take.

    Args:
        seconds: its default.
        least: seconds.
        most: seconds.
    """
    return option(
        "--timeout",
        type=Seconds(least, most),
        default=seconds,
        unit="s",
        metavar="SECONDS",
        help="How long it may take.",
    )


class Sha256(click.ParamType[str]):
    """A SHA-256 in hex, also as commands print it: with `sha256:` in front."""

    name = "sha256"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """64 hex digits, lower case."""
        digits = str(value).lower().removeprefix("sha256:")
        if re.fullmatch("[0-9a-f]{64}", digits) is None:
            self.fail(f"{value!r} is not a SHA-256: it has 64 hex digits", param, ctx)
        return digits


class Seconds(click.FloatRange):
    """A range that NaN is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number
