"""The floor: the versions below which nothing is trusted any more, and the file that keeps them."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from phase import files
from phase.files import open_plain as open_plain  # for who keeps floors
from phase.trust.errors import FormatError

_MAX_BYTES = 4 << 20
_NONE: Mapping[str, Any] = MappingProxyType({})


class Floor(NamedTuple):
    """What a client remembers of its last refresh.

    Attributes:
        root: version of the root trusted last. It counts for any publisher only where `roots` is empty.
        timestamp: its version; 0 when nothing is remembered.
        snapshot: its version.
        meta: version of every file the snapshot named, by file name.
        keys: public keys of `timestamp` and `snapshot` at that time. Where they have changed since,
            the versions they vouched for are forgotten (TUF 1.0.34, 5.3.11): a thief of the old
            keys may have pushed them to the highest number there is.
        time: Unix seconds of the refresh; the clock does not go back behind it.
        roots: the same by publisher: the highest version trusted of any whose chain of roots named this key
            (its `short` form), for whichever role. One key that is known is enough to know a publisher
            again: it may have replaced all others.
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    meta: Mapping[str, int] = _NONE
    keys: Mapping[str, list[str]] = _NONE
    time: int = 0
    roots: Mapping[str, int] = _NONE


def short(key: str) -> str:
    """A key's name in `Floor.roots`; firmware has little room."""
    return key[:16]


def least_root(floor: Floor, keys: Iterable[str]) -> int:
    """The version below which a publisher's root is not trusted any more.

    Args:
        floor: of one place.
        keys: the publisher's, all that its chain of roots has had; short.
    """
    return max((floor.roots.get(key, 0) for key in keys), default=0) if floor.roots else floor.root


def replacing(new: Floor, had: Floor) -> Floor:
    """The floor to keep in a place that has one: of other publishers, what it says of their roots."""
    return new._replace(roots=_highest(had.roots, new.roots))


def merged(floors: Iterable[Floor]) -> Floor:
    """What several places remember of one repository, the highest of each field: none lowers another's.

    Args:
        floors: with versions that the same keys have vouched for.
    """
    known = (Floor(), *floors)
    return Floor(
        root=max(floor.root for floor in known),
        timestamp=max(floor.timestamp for floor in known),
        snapshot=max(floor.snapshot for floor in known),
        meta=_highest(*(floor.meta for floor in known)),
        keys=next((floor.keys for floor in known if floor.keys), _NONE),
        time=max(floor.time for floor in known),
        roots=_highest(*(floor.roots for floor in known)),
    )


def _highest(*versions: Mapping[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in versions:
        for name, version in each.items():
            found[name] = max(version, found.get(name, 0))
    return found


def load(path: Path, *, directory: int | None = None) -> Floor:
    """Read a remembered floor.

    Args:
        path: a file written by `save`.
        directory: descriptor of the directory it is in, where others may change that directory's path.

    Returns:
        The floor; an empty one if there is no file.

    Raises:
        FormatError: there is a file, but it holds no floor. Starting over from nothing would let
            old releases back in, so that is a person's decision. A link or a pipe is no floor either.
    """
    try:
        with open(open_plain(path if directory is None else path.name, directory=directory), "rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise FormatError(f"trust state {path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise FormatError(f"trust state {path} is damaged: it has more than {_MAX_BYTES} bytes")
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Floor:
    """Read what `encode` made.

    Args:
        data: from `where`.
        where: for the error.

    Raises:
        FormatError: it is damaged.
    """
    try:
        return _checked(Floor(**json.loads(data)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"trust state {where} is damaged: {error}",
            hint="Remove it only if you know that no older release can be offered here.",
        ) from error


def encode(floor: Floor) -> bytes:
    """A floor as bytes: JSON.

    Raises:
        FormatError: `parse` would refuse it. A place that holds such a floor would refuse every release.
    """
    facts = floor._asdict() | {name: dict(getattr(floor, name)) for name in ("meta", "keys", "roots")}
    try:
        _checked(floor)
        data = json.dumps(facts, separators=(",", ":")).encode()
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"these versions cannot be remembered: {error}") from error
    if len(data) >= _MAX_BYTES:
        raise FormatError(f"these versions take {len(data)} bytes; the limit to remember is {_MAX_BYTES}")
    return data


def _checked(floor: Floor) -> Floor:
    """The floor, if everything in it is of its type: read by hand, as the seed starts faster so."""
    versions = (*floor.meta.values(), *floor.roots.values())
    numbers = (floor.root, floor.timestamp, floor.snapshot, floor.time, *versions)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a version is not a positive integer")
    for found in floor.keys.values():
        if not isinstance(found, list) or any(not isinstance(key, str) for key in found):
            raise ValueError("keys are not lists of texts")
    return floor


def save(path: Path, floor: Floor, *, directory: int | None = None) -> None:
    """Remember a floor, atomically.

    Args:
        path: of the file.
        floor: what to remember.
        directory: as for `load`.

    Raises:
        OSError: it cannot be written; the old one is then still there.
    """
    data = encode(floor) + b"\n"
    if directory is not None:
        files.write_at(directory, path.name, data, mode=0o600)
        return
    os.makedirs(path.parent, exist_ok=True)
    files.write(path, data, mode=0o600)
