"""Chunks that are on this machine already, in files of other releases.

The metadata of a release says where each of its chunks lies. It is read as it stands, without its signature:
the one who copies a chunk verifies it, so a false place costs a read and nothing else.
"""

import os
from collections.abc import Callable
from pathlib import Path

from phase import files
from phase.release import described
from phase.release.manifest import Artifact, Manifest
from phase.trust import Policy

#: Limit for chunks that are remembered.
_MOST_CHUNKS = 65_536
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
            for role, file in described.roles(_names(metadata)):
                if manifest := described.read(role, _content(metadata / file)):
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


def blobs_in(directory: Path) -> Opener:
    """Opens a blob by either name: a repository has the hash of the whole, a cache that of the chunks."""
    blobs = directory / "blobs" / "sha256"

    def opener(artifact: Artifact) -> int:
        try:
            return files.open_plain(blobs / artifact.sha256)
        except FileNotFoundError:
            return files.open_plain(blobs / artifact.content)

    return opener


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
