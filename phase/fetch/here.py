"""Chunks that are on this machine already, in files of other releases.

The metadata of a release says where each of its chunks lies. It is read as it stands, without its signature:
the one who copies a chunk verifies it, so a false place costs a read and nothing else.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from phase import files
from phase.errors import PhaseError
from phase.release.manifest import Artifact, Manifest, split_role
from phase.trust import Policy, wire

#: Limits for what is read of a directory: files with roles of releases, and chunks that are remembered.
_MOST_ROLES, _MOST_CHUNKS = 16, 65_536
_ROLE = re.compile(r"(\d{1,16})\.([A-Za-z0-9_-]+)\.json")
_TOP = ("root", "snapshot", "targets")
#: Opens a file of an artifact for reading, or raises OSError.
Opener = Callable[[Artifact], int]


class Here:
    """Where chunks lie, by their hashes."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[Opener, Artifact, int]] = {}

    def add(self, artifact: Artifact, opener: Opener) -> None:
        """Remember the chunks of an artifact whose file may be here."""
        for index, name in enumerate(artifact.chunks[: _MOST_CHUNKS - len(self._places)]):
            self._places.setdefault(name, (opener, artifact, index))

    def add_release(self, manifest: Manifest, opener: Opener) -> None:
        """Remember the chunks of all artifacts of a release."""
        for artifact in manifest.artifacts.values():
            self.add(artifact, opener)

    def add_directory(self, directory: Path) -> None:
        """Remember what a directory has: a repository, what `phase fetch` has filled, or a cache."""
        for metadata in sorted({directory / "metadata", *directory.glob("metadata-*")}):
            for role, file in _roles(_names(metadata)):
                if manifest := read(role, _content(metadata / file)):
                    self.add_release(manifest, blobs_in(directory))

    def get(self, sha256: str, size: int) -> bytes | None:
        """What should be a chunk; None where there is nothing.

        Args:
            sha256: of the chunk.
            size: its bytes.
        """
        if sha256 not in self._places:
            return None
        opener, artifact, index = self._places[sha256]
        try:
            descriptor = opener(artifact)
        except OSError:
            return None  # it was removed to make room, or never came
        try:
            return os.pread(descriptor, size, artifact.starts[index])
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def __bool__(self) -> bool:
        return bool(self._places)


def releases(metadata: Mapping[str, bytes]) -> list[Manifest]:
    """The releases that some metadata describes, none of them verified; the newest first.

    Args:
        metadata: file name to bytes, from anywhere.
    """
    found = (read(role, metadata[file]) for role, file in _roles(metadata))
    return [manifest for manifest in found if manifest]


def read(role: str, data: bytes) -> Manifest | None:
    """A manifest as it stands, not verified; None if it cannot be read."""
    from tuf.api.metadata import Targets

    try:
        split_role(role)
        signed, _ = wire.read(data, Targets, name=role, max_bytes=Policy().max_targets)
        return Manifest.from_role(role, signed)
    except PhaseError:
        return None


def blobs_in(directory: Path) -> Opener:
    """Opens a blob by either name: a repository has the hash of the whole, a cache that of the chunks."""
    blobs = directory / "blobs" / "sha256"

    def opener(artifact: Artifact) -> int:
        try:
            return files.open_plain(blobs / artifact.sha256)
        except FileNotFoundError:
            return files.open_plain(blobs / artifact.content)

    return opener


def _roles(names: Iterable[str]) -> list[tuple[str, str]]:
    """Roles of releases and their files, as many as are read; the newest versions first."""
    found = []
    for name in names:
        match = _ROLE.fullmatch(name)
        if match and match[2] not in _TOP:
            found.append((int(match[1]), match[2], name))
    return [(role, name) for _, role, name in sorted(found, reverse=True)[:_MOST_ROLES]]


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _content(path: Path) -> bytes:
    """A file of metadata; empty where it cannot be read."""
    try:
        with open(files.open_plain(path), "rb") as handle:
            return handle.read(Policy().max_targets + 1)
    except OSError:
        return b""
