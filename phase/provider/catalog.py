"""What a repository directory offers, read into memory.

A provider holds no key and believes nothing: it reads the metadata only to know which names lead
to which blobs. Whoever fetches verifies. Metadata is served as it is on disk, byte for byte.
"""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from phase.provider.documents import MAX_SHOWN, NAME, Document, Documents, Phase, Signed
from phase.provider.errors import RepositoryError

_HEX = re.compile(r"[0-9a-f]{64}\Z")


class Blob(NamedTuple):
    """A file of a release, on disk under its hash."""

    sha256: str
    length: int


class Release(NamedTuple):
    """What a channel and architecture should run."""

    channel: str
    arch: str
    version: int
    release: str
    cmdline: str
    expires: str
    manifest: Document
    artifacts: dict[str, Blob]


class Catalog(NamedTuple):
    """Everything a repository offers at one time."""

    metadata: dict[str, Document]
    releases: dict[tuple[str, str], Release]
    targets: dict[str, Blob]
    blobs: dict[str, Blob]
    #: When each role's signature ends, Unix seconds.
    expires: dict[str, float]


def stamp(directory: Path) -> tuple[object, ...]:
    """What changes whenever a new timestamp or a new root is published.

    A new root comes after the timestamp: a look between the two must not be the last one.

    Raises:
        RepositoryError: there is none.
    """
    path = directory / "metadata" / "timestamp.json"
    try:
        timestamp = _state(path)
        roots = frozenset(name for name in os.listdir(path.parent) if name.endswith(".root.json"))
    except OSError as error:
        raise RepositoryError(
            f"{directory} is not a repository: {path.name} cannot be read: {error.strerror}",
            hint="Publish a release into it, or give --artifacts.",
        ) from error
    try:
        newest: object = _state(path.with_name("root.json"))
    except OSError:
        newest = None  # only a copy, which not everybody makes
    return timestamp, roots, newest


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def load(directory: Path) -> Catalog:
    """Read a repository.

    Args:
        directory: holds `metadata/` and `blobs/sha256/`.

    Raises:
        RepositoryError: a file is missing, malformed or too large.
    """
    files = Documents(directory)
    timestamp = files.signed("timestamp.json")
    snapshot_name = _versioned(timestamp, "snapshot.json")
    snapshot = files.signed(snapshot_name)
    expires = {"timestamp": _until(timestamp), "snapshot": _until(snapshot)}
    if (root := files.newest_root()) is not None:
        expires["root"] = _until(root)
    releases: dict[tuple[str, str], Release] = {}
    targets: dict[str, Blob] = {}
    for file in sorted(snapshot.meta):
        name = _versioned(snapshot, file)
        if name not in files.names:
            continue  # a machine that booted serves its own release, not every one of the snapshot
        role = files.signed(name)
        expires[file.removesuffix(".json")] = _until(role)
        for path, target in role.targets.items():
            blob = Blob(target.hashes.get("sha256", ""), target.length)
            if not _HEX.match(blob.sha256):
                raise RepositoryError(
                    f"{name[:MAX_SHOWN]}: target {path[:MAX_SHOWN]!r} has no SHA-256 in hex"
                )
            folder, _, last = path.rpartition("/")
            targets[path] = targets[f"{folder}/{blob.sha256}.{last}" if folder else path] = blob
        if role.phase is not None:
            release = _release(role.phase, role, files.read[name], name)
            releases[release.channel, release.arch] = release
    blobs = {blob.sha256: blob for blob in targets.values()}
    files.read_others({"snapshot": _number(snapshot_name), **_published(snapshot)})
    return Catalog(files.read, releases, targets, blobs, expires)


def _release(phase: Phase, role: Signed, manifest: Document, name: str) -> Release:
    if not (NAME.match(phase.channel) and NAME.match(phase.arch)):
        raise RepositoryError(f"{name[:MAX_SHOWN]}: its channel or architecture is not a plain name")
    prefix = f"{phase.channel}/{phase.arch}/"
    artifacts = {
        path.removeprefix(prefix): Blob(target.hashes["sha256"], target.length)
        for path, target in role.targets.items()
        if path.startswith(prefix)
    }
    return Release(
        phase.channel,
        phase.arch,
        role.version,
        phase.release,
        phase.cmdline,
        role.expires,
        manifest,
        artifacts,
    )


def _published(snapshot: Signed) -> dict[str, int]:
    return {file.removesuffix(".json"): pinned.version for file, pinned in snapshot.meta.items()}


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _versioned(signed: Signed, file: str) -> str:
    pinned = signed.meta.get(file)
    if pinned is None:
        raise RepositoryError(f"the metadata does not name {file[:MAX_SHOWN]}")
    return f"{pinned.version}.{file}"


def _until(signed: Signed) -> float:
    """When a signature ends, Unix seconds; 0 where it does not say so in a way that a client understands."""
    try:
        return datetime.fromisoformat(signed.expires).timestamp()
    except (ValueError, OverflowError):
        return 0.0
