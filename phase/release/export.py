"""A repository as a plain tree of files, for any web server, CDN or object store."""

import os
import shutil
from collections.abc import Iterable
from hashlib import file_digest
from pathlib import Path

from phase import files
from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.release.tree import Tree


def export(repository: Tree, target: Path, only: Iterable[tuple[str, str]] | None = None) -> int:
    """Copy what clients ask for; what a reader sees meanwhile is the old releases or the new.

    What is there already is read and compared: a damaged file is written anew.

    Args:
        repository: published.
        target: directory to fill. What is there already and the same is left alone.
        only: channels and architectures; all when left out.

    Returns:
        How many files were written.

    Raises:
        RepositoryError: not published, or a file cannot be copied.
    """
    wanted = list(only) if only is not None else repository.releases()
    written = 0
    try:
        # First what is addressed by its hash, then metadata with a version, the timestamp last but
        # for a newer root: the order of a publication.
        for entry in repository.subset(wanted):
            if entry.path.startswith(blobs.PLACE):
                path = target / entry.path
                written += _copy_blob(entry.file, path, path.name)
        for channel, arch in wanted:
            for artifact in repository.manifest(channel, arch).artifacts.values():
                link = target / "targets" / channel / arch / f"{artifact.sha256}.{artifact.name}"
                written += _link(target / blobs.PLACE / artifact.sha256, link, artifact.sha256)
        names = sorted(repository.metadata(wanted).items(), key=lambda item: _turn(item[0]))
        for name, data in names:
            path = target / "metadata" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                files.write(path, data)
                written += 1
    except OSError as error:
        raise RepositoryError(f"{target} cannot be written: {error.strerror}") from error
    return written


def _turn(name: str) -> tuple[int, str]:
    first = name == "1.root.json"
    last = name.endswith("root.json") and not first
    return (0 if first else 3 if last else 2 if name == "timestamp.json" else 1, name)


def _copy_blob(source: Path, path: Path, sha256: str) -> int:
    if _holds(path, sha256):
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with source.open("rb") as opened, temporary.open("wb") as copy:
            shutil.copyfileobj(opened, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        temporary.replace(path)
        files.sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return 1


def _holds(path: Path, sha256: str) -> bool:
    """Whether a file is there with this content: a power cut, or a hand, may have left its size alone."""
    try:
        with path.open("rb") as handle:
            return file_digest(handle, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False


def _link(blob: Path, link: Path, sha256: str) -> int:
    if link.exists() and (link.samefile(blob) or _holds(link, sha256)):
        return 0
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    try:
        os.link(blob, link)
    except OSError:  # a file system without links
        return _copy_blob(blob, link, sha256)
    files.sync_directory(link.parent)
    return 1
