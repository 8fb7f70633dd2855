"""The files of `phase run`: what `--dir`, `--input` and `--output` mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase.cli import _outcome
from phase.cli._tell import note
from phase.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from phase.jobs.job import Directory
    from phase.jobs.limits import Limits
    from phase.jobs.status import Status

    class Options(Protocol):
        """What a command was told of files."""

        @property
        def dir(self) -> tuple[str, ...]: ...
        @property
        def input(self) -> tuple[str, ...]: ...
        @property
        def output(self) -> tuple[str, ...]: ...
        @property
        def scratch(self) -> int | None: ...

    class Ended(Protocol):
        """What came of a job."""

        @property
        def status(self) -> Status: ...
        @property
        def files(self) -> Mapping[str, bytes]: ...


_READ_ONLY = ":ro"


def asked(options: "Options") -> bool:
    """Whether the job is to have any."""
    return bool(options.dir or options.input or options.output or options.scratch)


def of(options: "Options", limits: "Limits") -> dict[str, Any]:
    """The files of the job, as it takes them.

    Raises:
        JobRefusedError: an input cannot be read, or is too large.
    """
    inputs = dict(_pair(word, "--input") for word in options.input)
    return {
        "directories": [_directory(word) for word in options.dir],
        "inputs": {name: _read(name, Path(file), limits) for name, file in inputs.items()},
        "outputs": [name for name, _ in map(_target, options.output)],
    }


def bring(words: tuple[str, ...], module: Path | str, execution: "Ended") -> int | None:
    """Write the outputs; the exit code if one is lost of a module that went well."""
    from phase import files
    from phase.jobs.status import Exited

    if not words or not isinstance(execution.status, Exited):
        return None
    lost = None
    for name, file in map(_target, words):
        data = execution.files.get(name)
        try:
            if data is None:
                raise FileNotFoundError(f"{module} has left no file of that name")
            files.write(file, data)
        except OSError as error:
            lost = _outcome.LOST
            note(f"output {printable(name)} is lost: {error.strerror or error}")
    return lost if execution.status.code == 0 else None


def _directory(word: str) -> "Directory":
    from phase.jobs.job import Directory

    path = word.removesuffix(_READ_ONLY)
    host, colons, guest = path.partition("::")
    if not host or (colons and not guest):
        raise click.BadParameter(f"{word!r} is not HOST[::GUEST][:ro]", param_hint="--dir")
    return Directory(host, guest or host, writable=path == word)


def _pair(word: str, option: str) -> tuple[str, str]:
    name, equals, file = word.partition("=")
    if not (name and equals and file):
        raise click.BadParameter(f"{word!r} is not NAME=FILE", param_hint=option)
    return name, file


def _target(word: str) -> tuple[str, Path]:
    name, _, file = word.partition("=")
    return name, Path(file or name)


def _read(name: str, path: Path, limits: "Limits") -> bytes:
    from phase.errors import unreadable
    from phase.jobs.errors import JobRefusedError

    try:
        with path.open("rb") as file:
            return file.read(limits.stdin_bytes + 1)
    except OSError as error:
        raise JobRefusedError(unreadable(f"input {printable(name)} from {path}", error)) from error
