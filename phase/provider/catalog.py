"""What a repository directory offers, read into memory.

A provider holds no key and believes nothing: it reads the metadata only to know which names lead
to which blobs. Whoever fetches verifies. Metadata is served as it is on disk, byte for byte.
"""

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from phase.foreign import MalformedError, read_json
from phase.provider.errors import RepositoryError

MAX_METADATA = 5_000_000
MAX_FILES = 4096
_HEX = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


#: What a version or a length may be: what a client of ours takes, and no text of a thousand digits.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_MAX_SHOWN = 100


class _Phase(msgspec.Struct, frozen=True):
    channel: str
    arch: str
    release: str = ""
    cmdline: str = ""


class _File(msgspec.Struct, frozen=True):
    length: _Count
    hashes: dict[str, str]


class _Pinned(msgspec.Struct, frozen=True):
    version: _Count


class _Signed(msgspec.Struct, frozen=True):
    version: _Count = 0
    expires: str = ""
    meta: dict[str, _Pinned] = {}
    targets: dict[str, _File] = {}
    phase: _Phase | None = msgspec.field(default=None, name="x-phase")


class _Envelope(msgspec.Struct, frozen=True):
    signed: _Signed


class Document(NamedTuple):
    """A small file, served from memory."""

    body: bytes
    digest: bytes

    @property
    def etag(self) -> str:
        """Strong, and the same on every provider."""
        return f"sha256-{self.digest.hex()}"


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
            f"{directory} is no repository: {path.name} cannot be read: {error.strerror}",
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
    metadata = _read_metadata(directory / "metadata")
    timestamp = _signed(metadata, "timestamp.json")
    snapshot = _signed(metadata, _versioned(metadata, timestamp, "snapshot.json"))
    releases: dict[tuple[str, str], Release] = {}
    targets: dict[str, Blob] = {}
    for file in sorted(snapshot.meta):
        name = _versioned(metadata, snapshot, file)
        if name not in metadata:
            continue  # a machine that booted serves its own release, not every one of the snapshot
        role = _signed(metadata, name)
        for path, target in role.targets.items():
            blob = Blob(target.hashes.get("sha256", ""), target.length)
            if not _HEX.match(blob.sha256):
                raise RepositoryError(
                    f"{name[:_MAX_SHOWN]}: target {path[:_MAX_SHOWN]!r} has no SHA-256 in hex"
                )
            folder, _, last = path.rpartition("/")
            targets[path] = targets[f"{folder}/{blob.sha256}.{last}" if folder else path] = blob
        if role.phase is not None:
            release = _release(role.phase, role, metadata[name], name)
            releases[release.channel, release.arch] = release
    blobs = {blob.sha256: blob for blob in targets.values()}
    return Catalog(metadata, releases, targets, blobs)


def _release(phase: _Phase, role: _Signed, manifest: Document, name: str) -> Release:
    if not (_NAME.match(phase.channel) and _NAME.match(phase.arch)):
        raise RepositoryError(f"{name[:_MAX_SHOWN]}: its channel or architecture is no plain name")
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


def _read_metadata(directory: Path) -> dict[str, Document]:
    found: dict[str, Document] = {}
    try:
        for path in sorted(directory.iterdir()):
            if path.suffix != ".json" or not _NAME.match(path.name) or not path.is_file():
                continue
            if len(found) >= MAX_FILES or path.stat().st_size > MAX_METADATA:
                raise RepositoryError(f"{path} is too large, or one of more than {MAX_FILES} files")
            body = path.read_bytes()
            found[path.name] = Document(body, sha256(body).digest())
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be read: {error.strerror}") from error
    return found


def _versioned(metadata: dict[str, Document], signed: _Signed, file: str) -> str:
    pinned = signed.meta.get(file)
    if pinned is None:
        raise RepositoryError(f"the metadata does not name {file[:_MAX_SHOWN]}")
    return f"{pinned.version}.{file}"


def _signed(metadata: dict[str, Document], name: str) -> _Signed:
    document = metadata.get(name)
    if document is None:
        raise RepositoryError(f"metadata/{name[:_MAX_SHOWN]} is missing", hint="Publish the release again.")
    try:
        return read_json(document.body, _Envelope).signed
    except MalformedError as error:
        raise RepositoryError(f"metadata/{name} cannot be read: {str(error)[:_MAX_SHOWN]}") from error
