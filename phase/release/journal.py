"""Replaces several files of a repository, all or none: the next command completes an interrupted change.

    publishing/order.json     the changes, in their order
    publishing/N              the content of the Nth file

The directory gets this name when everything in it is on the disk. From then on the change is made, or
completed.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from phase import files
from phase.foreign import MalformedError, read_json
from phase.release.errors import RepositoryError

PLACE = "publishing"
_NEW = "publishing.new"
_ORDER = "order.json"
_MAX_FILES = 20_000
_MAX_BYTES = 5_000_000
_PATH = re.compile(r"(?:metadata|staged)/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\.json")


class Change(NamedTuple):
    """One file to replace.

    Attributes:
        path: below the repository: `metadata/X.json` or `staged/X.json`.
        data: its new content; None removes it.
    """

    path: str
    data: bytes | None


class _Step(msgspec.Struct, frozen=True):
    path: str
    remove: bool = False


def carry_out(directory: Path, changes: Sequence[Change]) -> None:
    """Replace files, in this order. The caller holds the repository's lock.

    Args:
        directory: the repository.
        changes: each path once.

    Raises:
        OSError: a file cannot be written. Either nothing has changed, or `finish` completes the change.
    """
    if not changes:
        return
    files.make_public(directory)
    new = directory / _NEW
    shutil.rmtree(new, ignore_errors=True)
    files.make_public(new)
    for number, change in enumerate(changes):
        if change.data is not None:
            files.write(new / str(number), change.data)
    steps = [_Step(change.path, change.data is None) for change in changes]
    files.write(new / _ORDER, msgspec.json.encode(steps))
    new.rename(directory / PLACE)
    files.sync_directory(directory)
    _apply(directory, steps)


def finish(directory: Path) -> bool:
    """Complete an interrupted `carry_out`. The caller holds the repository's lock.

    Args:
        directory: the repository.

    Returns:
        Whether there was an interrupted change.

    Raises:
        RepositoryError: it cannot be read or written, or was not written by a publication.
    """
    place = directory / PLACE
    shutil.rmtree(directory / _NEW, ignore_errors=True)
    if not place.is_dir():
        return False
    try:
        with open(files.open_plain(place / _ORDER), "rb") as handle:
            steps = read_json(handle.read(_MAX_BYTES + 1), list[_Step])
        if len(steps) > _MAX_FILES or not all(_PATH.fullmatch(step.path) for step in steps):
            raise MalformedError("it names files that no publication writes")
        _apply(directory, steps)
    except MalformedError as error:
        raise RepositoryError(
            f"{place} is damaged: {error}",
            hint="A publication that was killed has left it. Remove it, then publish again.",
        ) from error
    except OSError as error:
        raise RepositoryError(
            f"a publication was interrupted in {directory}, and cannot be completed: {error.strerror}"
        ) from error
    return True


def _apply(directory: Path, steps: Sequence[_Step]) -> None:
    """Give the files their names. This needs no more room on the disk, and may be repeated."""
    place = directory / PLACE
    for number, step in enumerate(steps):
        path = directory / step.path
        if step.remove:
            path.unlink(missing_ok=True)
            continue
        files.make_public(path.parent)
        with contextlib.suppress(FileNotFoundError):  # done before the interruption
            os.replace(place / str(number), path)
        files.sync_directory(path.parent)
    # Remove first the name by which `finish` finds it.
    place.rename(directory / _NEW)
    shutil.rmtree(directory / _NEW, ignore_errors=True)
