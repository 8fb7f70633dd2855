"""Reads the offer of a repository directory into memory.

A provider holds no key and verifies nothing: it reads the metadata only to know which names lead
to which blobs. Clients verify. Metadata is served as it is on disk, byte for byte.
"""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from phase.errors import unreadable
from phase.provider.documents import MAX_SHOWN, Document, Documents, Signed
from phase.provider.errors import DocumentError, RepositoryError
from phase.release import lifetimes
from phase.release.errors import ManifestError
from phase.release.manifest import split_role

_HEX = re.compile(r"[0-9a-f]{64}\Z")


class Blob(NamedTuple):
    """A file of a release, on disk under its hash."""

    sha256: str
    length: int


class Release(NamedTuple):
    """The release of one channel and architecture."""

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
    #: By hash: the lengths that roles give for it. If they differ, the file itself decides.
    blobs: dict[str, frozenset[int]]
    #: When each role's signature ends, Unix seconds.
    expires: dict[str, float]
    #: The moment by which a person must have renewed each role, Unix seconds.
    renew_by: dict[str, float]
    #: Roles whose content cannot be served, and why. Other roles are served all the same.
    refused: dict[str, str]


def stamp(directory: Path) -> tuple[object, ...]:
    """A value that changes whenever a new timestamp or a new root is published.

    A new root is written after the timestamp, so the timestamp alone is not enough.

    Raises:
        RepositoryError: the directory has no readable timestamp.
    """
    path = directory / "metadata" / "timestamp.json"
    try:
        timestamp = _state(path)
        roots = frozenset(name for name in os.listdir(path.parent) if name.endswith(".root.json"))
    except OSError as error:
        raise RepositoryError(
            unreadable(f"{directory} is not a repository: {path.name}", error),
            hint="Publish a release into it, or give --artifacts.",
        ) from error
    try:
        newest: object = _state(path.with_name("root.json"))
    except OSError:
        newest = None  # only a copy of the newest root, which some publishers do not make
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
    known = {"timestamp": timestamp, "snapshot": snapshot}
    if (root := files.newest_root()) is not None:
        known["root"] = root
    releases: dict[tuple[str, str], Release] = {}
    targets: dict[str, Blob] = {}
    lengths: dict[str, set[int]] = {}
    refused: dict[str, str] = {}
    top = files.signed(_versioned(snapshot, "targets.json"))
    delegated = {each.name for each in top.delegations.roles} if top.delegations else set()
    # The top-level role comes last, so that its entry for a path replaces the entries of others.
    for file in sorted(snapshot.meta, key=lambda file: (file == "targets.json", file)):
        role, name = file.removesuffix(".json"), _versioned(snapshot, file)
        if name not in files.names:
            continue  # a machine that booted serves its own release only, not all of the snapshot
        try:
            signed = files.signed(name)
            found = _targets(role, signed, name)
            release = _release(role, signed, found, files.read[name], name)
            if release is not None and role not in delegated:
                continue  # withdrawn: the snapshot must still name it, since machines remember the name
        except DocumentError as error:
            if file == "targets.json":
                raise
            refused[role] = str(error)
            continue
        known[role] = signed
        for path, blob in found.items():
            folder, _, last = path.rpartition("/")
            targets[path] = targets[f"{folder}/{blob.sha256}.{last}" if folder else path] = blob
            lengths.setdefault(blob.sha256, set()).add(blob.length)
        if release is not None:
            releases[release.channel, release.arch] = release
    blobs = {digest: frozenset(found) for digest, found in lengths.items()}
    files.read_others({"snapshot": _number(snapshot_name), **_published(snapshot)})
    expires = {role: _until(signed) for role, signed in known.items()}
    renew_by = {
        role: lifetimes.renew_by(expires[role], role, signed.phase and signed.phase.lifetime)
        for role, signed in known.items()
    }
    return Catalog(files.read, releases, targets, blobs, expires, renew_by, refused)


def _targets(role: str, signed: Signed, name: str) -> dict[str, Blob]:
    """The targets of a role. The role of a release may only describe files of that release."""
    place, top = _place(role), role == "targets"
    found = {}
    for path, target in signed.targets.items():
        if not top and (place is None or not path.startswith(f"{'/'.join(place)}/")):
            continue
        blob = Blob(target.hashes.get("sha256", ""), target.length)
        if not _HEX.match(blob.sha256):
            raise DocumentError(f"{name[:MAX_SHOWN]}: target {path[:MAX_SHOWN]!r} has no SHA-256 in hex")
        found[path] = blob
    return found


def _place(role: str) -> tuple[str, str] | None:
    """Channel and architecture of a role, by its name; None if it is not the role of a release."""
    try:
        return split_role(role)
    except ManifestError:
        return None


def _release(
    role: str, signed: Signed, targets: dict[str, Blob], manifest: Document, name: str
) -> Release | None:
    facts, place = signed.phase, _place(role)
    if facts is None or place is None:
        return None
    if (facts.channel, facts.arch) != place:
        said = f"{facts.channel}/{facts.arch}"[:MAX_SHOWN]
        raise DocumentError(
            f"{name[:MAX_SHOWN]} says that it is a release of {said!r}",
            hint=f"The role {role} can publish {'/'.join(place)} only.",
        )
    prefix = f"{'/'.join(place)}/"
    artifacts = {path.removeprefix(prefix): blob for path, blob in targets.items()}
    return Release(*place, signed.version, facts.release, facts.cmdline, signed.expires, manifest, artifacts)


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
    """When a signature ends, Unix seconds; 0 if its date is in no format that a client understands."""
    try:
        return datetime.fromisoformat(signed.expires).timestamp()
    except (ValueError, OverflowError):
        return 0.0
