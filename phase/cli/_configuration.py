"""The configuration files: TOML, in three places, each bounded, each word in it known.

    arch = "arm64"              # of every command that has --arch

    [serve]                     # of `phase serve` alone
    port = 8443
    bind = ["192.0.2.7"]

    [release.add]
    days = 90

The nearest file counts: the one of --config, then the user's, then the system's. In one file, the
command's own table counts before that of its group, and that before the words at the top.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from phase.errors import PhaseError

#: The system's.
SYSTEM = Path("/etc/phase/phase.toml")
#: Bytes of one file.
MAX_BYTES = 65_536
_META = "phase.configuration"
_Place = tuple[str, ...]


class ConfigurationError(PhaseError):
    """A configuration file cannot be used."""


class Found(NamedTuple):
    """A value in a file.

    Attributes:
        value: as TOML has it.
        file: where it is.
        place: the table.
    """

    value: object
    file: Path
    place: _Place

    @property
    def where(self) -> str:
        """The file and the table, for people."""
        return f"{self.file} [{'.'.join(self.place)}]" if self.place else str(self.file)

    def for_option(self, *, flag: bool, several: bool) -> Any:
        """The value as a command line would have it.

        Args:
            flag: the option has no value.
            several: the option has more than one value.

        Raises:
            ValueError: an option like that cannot have it.
        """
        if flag:
            if not isinstance(self.value, bool):
                raise ValueError(f"{self.value!r} is neither true nor false")
            return self.value
        if several:
            if not isinstance(self.value, list):
                raise ValueError(f"{self.value!r} is not a list")
            return tuple(_text(each) for each in self.value)
        return _text(self.value)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{value!r} is not a text or a number")
    return str(value)


class Configuration(NamedTuple):
    """What the files say.

    Attributes:
        files: the nearest first: path, and words with values by table.
    """

    files: tuple[tuple[Path, Mapping[_Place, Mapping[str, object]]], ...]

    def find(self, place: _Place, word: str) -> Found | None:
        """The value that counts for an option; None where no file has one.

        Args:
            place: the command: `("release", "add")`.
            word: the option without its dashes.
        """
        for path, tables in self.files:
            for end in range(len(place), -1, -1):
                table = tables.get(place[:end], {})
                if word in table:
                    return Found(table[word], path, place[:end])
        return None


def of(ctx: click.Context) -> Configuration:
    """The configuration of the command that runs, read once.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    if _META not in ctx.meta:
        ctx.meta[_META] = load(ctx.find_root().params.get("config"))
    found: Configuration = ctx.meta[_META]
    return found


def load(given: Path | None = None) -> Configuration:
    """Read the files that are there.

    Args:
        given: must be there.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    places = [(given, True)] if given is not None else []
    places += [(place, False) for place in (user(), SYSTEM) if place is not None]
    found = []
    for path, needed in places:
        # A service manager may hide home directories: what is there is then not meant for this process.
        if needed or _is_there(path, hidden=path != SYSTEM):
            found.append((path, read(path)))
    return Configuration(tuple(found))


def user() -> Path | None:
    """The user's file; None where nothing says where that is."""
    # The XDG specification has relative paths ignored.
    if (given := os.environ.get("XDG_CONFIG_HOME", "")).startswith("/"):
        return Path(given, "phase/phase.toml")
    try:
        return Path.home() / ".config/phase/phase.toml"
    except RuntimeError:
        return None


def _is_there(path: Path, *, hidden: bool) -> bool:
    """Whether there is such a file; one that is hidden from this process may count as one that is not."""
    try:
        path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR) or (hidden and error.errno == errno.EACCES):
            return False
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return True


def read(path: Path) -> dict[_Place, dict[str, object]]:
    """Read one file.

    Raises:
        ConfigurationError: it cannot be read, is too long, is not TOML, or has an unknown word.
    """
    import tomllib

    from phase.cli import _given

    data = _given.read(path, "the configuration", MAX_BYTES, kind=ConfigurationError)
    try:
        document = tomllib.loads(data.decode("utf-8"))
    # A ValueError is a number with too many digits, too; a RecursionError thousands of brackets.
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigurationError(f"the configuration {path} is not TOML: {why}") from error
    return dict(_tables(path, (), document))


def _tables(
    path: Path, place: _Place, table: Mapping[str, object]
) -> Iterator[tuple[_Place, dict[str, object]]]:
    from phase.cli._words import COMMANDS

    within = [each for each in COMMANDS if each[: len(place)] == place]
    words = {word for each in within for word in COMMANDS[each]}
    below = {each[len(place)] for each in within if len(each) > len(place)}
    own = {}
    for name, value in table.items():
        if isinstance(value, dict) and name in below:
            yield from _tables(path, (*place, name), value)
        elif name in words and not isinstance(value, dict):
            own[name] = value
        else:
            raise _unknown(path, place, name, words, below)
    yield place, own


def _unknown(path: Path, place: _Place, name: str, words: set[str], below: set[str]) -> ConfigurationError:
    import difflib

    from phase.cli._words import TYPED

    where = f"{path} [{'.'.join(place)}]" if place else str(path)
    if name in words or name in below:
        what = "is an option, not a table" if name in words else "is a table of a command, not an option"
        return ConfigurationError(f"{where}: {name} {what}")
    if name in TYPED:
        return ConfigurationError(
            f"{where}: --{name} is for the command line alone", hint="Remove it there."
        )
    near = difflib.get_close_matches(name[:64], sorted(words | below), 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else "See `phase config show`."
    return ConfigurationError(f"{where}: there is no option {name[:64]!r}", hint=hint)
