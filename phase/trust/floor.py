"""The floor: the versions below which nothing is trusted any more, and the files that keep them.

A place (a directory, a disk, firmware) keeps one floor for each publisher, by the hash of the root that was
trusted first: none can lower another's, damage it or take its room. All of them are looked at, since an
image with a newer first root is of the same publisher: the keys that a floor names tell whose it is.
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
from phase.errors import printable
from phase.files import open_plain as open_plain  # for who keeps floors
from phase.trust.errors import FormatError

#: Bytes of a floor as a file. A snapshot of the most and longest names that are taken makes less.
MAX_BYTES = 4 << 20
#: Values in one: each takes a hundred bytes of memory, and a disk may come from anywhere.
MAX_VALUES = 1 << 14
#: Publishers that a place remembers: firmware has little room, and a disk may come from anywhere.
MAX_PUBLISHERS = 8
#: What a floor before publishers had one each is called.
BEFORE = "floor.json"
_PREFIX, _SUFFIX = "floor-", ".json"
_HINT = "Remove it only if you know that no older release can be offered here."
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
        whole: version of each release that came to this machine whole, by file name. What was only seen may
            never come, and must not keep an older one that is here from booting; what was here must.
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
    """What one place remembers.

    Attributes:
        own: of the publisher that was asked for.
        others: what else is there: of other publishers, of this one by another first root, and from before
            publishers had one each. Each is judged by the keys it names.
        unreadable: what of the others cannot be read, and why.
        names: of the others by name, with what they hold; None for one that cannot be read.
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
    """What the memory of a publisher is called: by the root that was trusted first."""
    return sha256(root).hexdigest()[:16]


def name_of(publisher: str) -> str:
    """The file of a publisher's floor."""
    return f"{_PREFIX}{publisher}{_SUFFIX}"


def publisher_of(file: str) -> str:
    """The publisher of a file that `name_of` named."""
    return file.removeprefix(_PREFIX).removesuffix(_SUFFIX)


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


def reduced(floor: Floor, files: Collection[str]) -> Floor:
    """A floor for a place with little room: without the versions of releases that are not booted there.

    Args:
        floor: with all that a snapshot named, which may be a thousand releases.
        files: names of those that are.
    """
    wanted = {"targets.json", *files}
    return floor._replace(meta={file: floor.meta[file] for file in floor.meta if file in wanted})


def merged(floors: Iterable[Floor]) -> Floor:
    """What several places remember of one repository, the highest of each field: none lowers another's.

    Args:
        floors: with versions that the same keys have vouched for.

    Returns:
        One floor; what came `whole` is each place's own, and left out.
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
            data = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise FormatError(f"trust state {path} cannot be read: {error.strerror}", hint=_HINT) from error
    return parse(data, str(path))


def load_all(path: Path, publisher: str, *, directory: int | None = None) -> Kept:
    """Read everything that a directory remembers.

    Args:
        path: of the directory.
        publisher: as `publisher` returns it.
        directory: its descriptor, where others may change its path.

    Raises:
        FormatError: this publisher's cannot be read, or one from before publishers had one each.
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
    """What a place remembers.

    Args:
        own: of the publisher.
        before: from before publishers had one each; empty where there is none.
        others: names of what else is there; so many are read as may be there, and one.
        load: reads one of them, or raises FormatError: a damaged one stops only its own publisher.
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
        publisher: whose.
        floor: what to remember.
        had: what `load_all` returned.
        directory: as for `load_all`.

    Returns:
        Names of what other publishers had there and was removed, since there were too many.

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
    """Read what `encode` made.

    Args:
        data: from `where`.
        where: for the error.
        hint: what helps where it is damaged.

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
        FormatError: `parse` would refuse it. A place that holds such a floor would refuse every release.
    """
    maps = {name: dict(getattr(floor, name)) for name in ("meta", "keys", "roots", "whole")}
    # What is empty is left out: firmware has little room.
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
    """The floor, if everything in it is of its type: read by hand, as the seed starts faster so."""
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
