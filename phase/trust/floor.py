"""The floor: the versions below which nothing is trusted any more, and the files that keep them.

A place (a directory, a disk, firmware) keeps one floor for each publisher, named by the hash of the root
that was trusted first: no publisher can lower another's floor, damage it or take its room. All floors of a
place are read, because an image with a newer first root is of the same publisher: the keys that a floor
names show whose it is.
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from phase import files
from phase.errors import printable, unreadable
from phase.files import open_plain as open_plain  # for modules that keep floors
from phase.trust.errors import FormatError

#: Limit for a floor as a file, bytes. The largest snapshot that is accepted makes less.
MAX_BYTES = 4 << 20
#: Limit for the values in a floor: each takes a hundred bytes of memory, and a disk may come from anywhere.
MAX_VALUES = 1 << 14
#: Limit for the publishers of a place: firmware has little room, and a disk may come from anywhere.
MAX_PUBLISHERS = 8
#: The name of the one floor that older versions kept for all publishers.
BEFORE = "floor.json"
_PREFIX, _SUFFIX = "floor-", ".json"
_HINT = "Remove it only if you know that no older release can be offered here."
_NONE: Mapping[str, Any] = MappingProxyType({})


class Floor(NamedTuple):
    """What a client remembers of its last refresh.

    Attributes:
        root: version of the root trusted last. It counts for every publisher, but only if `roots` is empty.
        timestamp: its version; 0 if nothing is remembered.
        snapshot: its version.
        meta: version of every file that the snapshot named, by file name.
        keys: public keys of `timestamp` and `snapshot` at that time. If they have changed since, the
            versions that they signed are forgotten (TUF 1.0.34, 5.3.11): a thief of the old keys may have
            signed the highest version possible.
        time: Unix seconds of the refresh; no later refresh uses an earlier time.
        roots: highest trusted root version by key (its `short` form), for each key that any role in the
            publisher's chain of roots has had. One known key is enough to recognise a publisher, which may
            have replaced all others.
        whole: version of each release that this machine has received completely, by file name. It may not
            boot an older one. A release that was only announced does not count: it may never arrive.
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    meta: Mapping[str, int] = _NONE
    keys: Mapping[str, list[str]] = _NONE
    time: int = 0
    roots: Mapping[str, int] = _NONE
    whole: Mapping[str, int] = _NONE


class Kept(NamedTuple):
    """The floors of one place.

    Attributes:
        own: floor of the publisher that was asked for.
        others: the other floors: of other publishers, of this one by another first root, and the one that
            older versions kept for all. Each is judged by the keys that it names.
        unreadable: errors of the other floors that cannot be read.
        names: the other floors by file name; None for one that cannot be read.
    """

    own: Floor = Floor()
    others: tuple[Floor, ...] = ()
    unreadable: tuple[str, ...] = ()
    names: Mapping[str, Floor | None] = _NONE

    @property
    def all(self) -> tuple[Floor, ...]:
        """Every floor."""
        return (self.own, *self.others)


def publisher(root: bytes) -> str:
    """The name of a publisher: a hash of the root that was trusted first."""
    return sha256(root).hexdigest()[:16]


def name_of(publisher: str) -> str:
    """The file of a publisher's floor."""
    return f"{_PREFIX}{publisher}{_SUFFIX}"


def publisher_of(file: str) -> str:
    """The publisher of a file that `name_of` named."""
    return file.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def short(key: str) -> str:
    """A key's name in `Floor.roots`; short, since firmware has little room."""
    return key[:16]


def least_root(floor: Floor, keys: Iterable[str]) -> int:
    """The version below which a publisher's root is not trusted any more.

    Args:
        floor: of one place.
        keys: all keys that the publisher's chain of roots has had; short.
    """
    return max((floor.roots.get(key, 0) for key in keys), default=0) if floor.roots else floor.root


def reduced(floor: Floor, files: Collection[str]) -> Floor:
    """A floor for a place with little room: without the versions of releases that are not booted there.

    Args:
        floor: with every file that a snapshot named, which may be a thousand releases.
        files: file names of the releases that are booted there.
    """
    wanted = {"targets.json", *files}
    return floor._replace(meta={file: floor.meta[file] for file in floor.meta if file in wanted})


def merged(floors: Iterable[Floor]) -> Floor:
    """The floor of one repository from several places, with the highest version of each field.

    Args:
        floors: their versions are signed by the same keys.

    Returns:
        One floor, without `whole`, which belongs to each place.
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
        directory: descriptor of its directory, if others may change the path of that directory.

    Returns:
        The floor; an empty one if there is no file.

    Raises:
        FormatError: there is a file, but not with a floor in it; or it is a link or a pipe. An empty floor
            in its place would let old releases back in, so that is a person's decision.
    """
    try:
        with open(open_plain(path if directory is None else path.name, directory=directory), "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise FormatError(unreadable(f"trust state {path}", error), hint=_HINT) from error
    return parse(data, str(path))


def load_all(path: Path, publisher: str, *, directory: int | None = None) -> Kept:
    """Read all floors of a directory.

    Args:
        path: of the directory.
        publisher: as `publisher` returns it.
        directory: its descriptor, if others may change its path.

    Raises:
        FormatError: this publisher's floor cannot be read, or the one that older versions kept for all.
    """
    own = load(path / name_of(publisher), directory=directory)
    before = load(path / BEFORE, directory=directory)
    try:
        names = sorted(os.listdir(path if directory is None else directory))
    except OSError:
        names = []  # a new one
    mine = {name_of(publisher), BEFORE}
    there = [name for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return kept(
        own,
        before,
        [name for name in there if name not in mine],
        lambda name: load(path / name, directory=directory),
    )


def kept(own: Floor, before: Floor, others: Iterable[str], load: Callable[[str], Floor]) -> Kept:
    """The floors of a place.

    Args:
        own: of the publisher.
        before: the one that older versions kept for all publishers; empty if it is not there.
        others: names of the other floors; only one more than the limit is read.
        load: reads one of them, or raises FormatError. A damaged floor stops only its own publisher.
    """
    found: dict[str, Floor | None] = {}
    unreadable: list[str] = []
    for name in list(others)[: MAX_PUBLISHERS + 1]:
        try:
            found[name] = load(name)
        except FormatError as error:
            found[name] = None
            unreadable.append(error.what)
    floors = [floor for floor in (before, *found.values()) if floor not in (None, Floor())]
    return Kept(own, tuple(floor for floor in floors if floor is not None), tuple(unreadable), found)


def keep(
    path: Path, publisher: str, floor: Floor, had: Kept, *, directory: int | None = None
) -> tuple[str, ...]:
    """Remember a publisher's floor in a directory.

    Args:
        path: of the directory.
        publisher: whose floor it is.
        floor: the floor to remember.
        had: from `load_all`.
        directory: as for `load_all`.

    Returns:
        Names of floors of other publishers that were removed, since there were too many.

    Raises:
        OSError: it cannot be written; the old one is then still there.
    """
    save(path / name_of(publisher), floor, directory=directory)
    forgotten = tuple(superfluous(had))
    for name in forgotten:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path / name if directory is None else name, dir_fd=directory)
    return forgotten


def superfluous(had: Kept) -> list[str]:
    """Names of the floors that make room for one more: those that cannot be read, then the oldest."""
    order = sorted(had.names, key=lambda name: (floor.time if (floor := had.names[name]) else -1, name))
    return order[: max(len(order) - MAX_PUBLISHERS + 1, 0)]


def parse(data: bytes, where: str, *, hint: str = _HINT) -> Floor:
    """Read the bytes that `encode` made.

    Args:
        data: the bytes.
        where: their origin, for the error.
        hint: what to try if they are damaged.

    Raises:
        FormatError: it is damaged.
    """
    if why := _too_large(data):
        raise FormatError(f"trust state {where} is damaged: it has {why}", hint=hint)
    try:
        return _checked(Floor(**json.loads(data)))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(
            f"trust state {where} is damaged: {printable(str(error))[:200]}", hint=hint
        ) from error


def encode(floor: Floor) -> bytes:
    """A floor as bytes: JSON.

    Raises:
        FormatError: `parse` would refuse it, and then the place would refuse every release.
    """
    maps = {name: dict(getattr(floor, name)) for name in ("meta", "keys", "roots", "whole")}
    # Empty fields are left out: firmware has little room.
    facts = {name: value for name, value in (floor._asdict() | maps).items() if value or name == "root"}
    try:
        _checked(floor)
        data = json.dumps(facts, separators=(",", ":")).encode()
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"these versions cannot be remembered: {error}") from error
    if why := _too_large(data + b"\n"):
        raise FormatError(f"these versions cannot be remembered: they have {why}")
    return data


def _too_large(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES} bytes"
    # An upper bound that costs nothing.
    return f"more than {MAX_VALUES} values" if data.count(b",") > MAX_VALUES else ""


def _checked(floor: Floor) -> Floor:
    """The floor, if all its values have their type. Checked by hand, so that the seed starts faster."""
    versions = (*floor.meta.values(), *floor.roots.values(), *floor.whole.values())
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
        floor: the floor to remember.
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
