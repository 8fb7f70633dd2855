"""Removes files from a repository that clients can no longer ask for.

It keeps every root; of each other role the published version and the four before it; the blobs of the
published version, and those of the four if they were replaced less than an hour ago. That gives clients time
to finish a fetch; a provider serves old blobs for the same time.
"""

import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tuf.api.metadata import Targets

from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.release.tree import Tree
from phase.trust import wire
from phase.trust.errors import TrustError

_log = logging.getLogger(__name__)
#: Number of earlier publications whose files are kept.
KEEP_VERSIONS = 4
#: Seconds for which the blobs of a publication are kept after the next one.
KEEP_SECONDS = 3600.0
_VERSIONED = re.compile(r"([1-9][0-9]{0,17})\.(.+)\.json\Z")
_MAX_METADATA = 5_000_000


class Pruned(NamedTuple):
    """The number of removed files.

    Attributes:
        metadata: files.
        blobs: files.
    """

    metadata: int
    blobs: int


def prune(tree: Tree, *, now: float | None = None, waiting: Iterable[str] = ()) -> Pruned:
    """Remove files that are not kept. The caller keeps other processes from publishing meanwhile.

    Args:
        tree: published, without pending changes.
        now: Unix seconds; the clock's when left out.
        waiting: SHA-256 (hex) of the files of releases that wait for signatures.

    Returns:
        The number of removed files.

    Raises:
        RepositoryError: a file cannot be removed, or published metadata cannot be read; then no blob was
            removed.
    """
    metadata = tree.directory / "metadata"
    moment = time.time() if now is None else now
    published = {role: version for role, version in tree.versions().items() if role != "root"}
    removed = 0
    wanted = set(waiting)
    try:
        there = _there(metadata)
        for role in there.keys() - published.keys() - {"root"}:
            removed += _withdrawn(there[role], there.get("targets", {}), moment, wanted)
        for role, version in published.items():
            kept, dropped = _split(there.get(role, {}), version)
            if role not in ("timestamp", "snapshot"):  # these name no blobs
                wanted |= _published_blobs(metadata / f"{version}.{role}.json")
                for number in kept[1:]:
                    if _replaced_at(there[role], number) > moment - KEEP_SECONDS:
                        wanted |= _replaced_blobs(there[role][number])
            for number in dropped:
                there[role][number].unlink(missing_ok=True)
                removed += 1
        _leftovers(metadata)
        return Pruned(removed, _prune_blobs(tree.directory, wanted))
    except OSError as error:
        raise RepositoryError(f"{tree.directory} cannot be pruned: {error.strerror}") from error


def _there(metadata: Path) -> dict[str, dict[int, Path]]:
    """Files with a version in their name, by role and version."""
    found: dict[str, dict[int, Path]] = {}
    for path in metadata.iterdir():
        match = _VERSIONED.match(path.name)
        if match is not None:
            found.setdefault(match[2], {})[int(match[1])] = path
    return found


def _split(there: dict[int, Path], published: int) -> tuple[list[int], list[int]]:
    """The versions to keep, and those to remove; newer ones belong to an interrupted publication."""
    older = sorted((number for number in there if number < published), reverse=True)
    kept = [number for number in (published, *older[:KEEP_VERSIONS]) if number in there]
    return kept, older[KEEP_VERSIONS:]


def _withdrawn(there: dict[int, Path], targets: dict[int, Path], moment: float, wanted: set[str]) -> int:
    """Remove a role an hour after it was withdrawn, so that its blobs go too; returns how many files."""
    since = max((path.stat().st_mtime for path in targets.values()), default=0.0)
    if since > moment - KEEP_SECONDS:
        wanted |= _replaced_blobs(there[max(there)])
        return 0
    for path in there.values():
        path.unlink(missing_ok=True)
    return len(there)


def _replaced_at(there: dict[int, Path], number: int) -> float:
    """When the next version was published, Unix seconds."""
    return there[min(other for other in there if other > number)].stat().st_mtime


def _published_blobs(path: Path) -> set[str]:
    """The blobs that published metadata names.

    Raises:
        RepositoryError: it is damaged, so it is not known which blobs are needed.
    """
    try:
        return _named_by(path)
    except TrustError as error:
        raise RepositoryError(f"{path} is damaged: {error}", hint="Publish the release again.") from error


def _replaced_blobs(path: Path) -> set[str]:
    """The blobs that replaced metadata names; empty if it is damaged, since no client can use it then."""
    try:
        return _named_by(path)
    except TrustError:
        return set()


def _named_by(path: Path) -> set[str]:
    with path.open("rb") as handle:
        data = handle.read(_MAX_METADATA + 1)
    signed, _ = wire.read(data, Targets, name=path.name, max_bytes=_MAX_METADATA)
    return {target.hashes.get("sha256", "") for target in signed.targets.values()}


def _prune_blobs(directory: Path, wanted: Iterable[str]) -> int:
    place, keep = directory / blobs.PLACE, set(wanted)
    if not place.is_dir():
        return 0
    for link in (directory / "targets").glob("*/*/*"):
        if link.name.partition(".")[0] not in keep:
            link.unlink(missing_ok=True)
    removed = 0
    for path in place.iterdir():
        if path.name not in keep and not path.name.startswith("."):
            path.unlink(missing_ok=True)
            removed += 1
    _leftovers(place)
    return removed


def _leftovers(directory: Path) -> None:
    """Remove the files that an interrupted copy has left."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)
        _log.info("removed %s, left by an interrupted publication", path.name)
