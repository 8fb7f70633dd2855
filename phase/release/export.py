"""A repository as a plain tree of files, for any web server, CDN or object store.

Others may write to the tree, for example a web server. So files are written by names in open directories,
links are not followed, and an existing file is only ever replaced.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO

from phase import files
from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.release.tree import Tree

#: An incomplete file that is older than this many seconds was left by an export that was killed.
_LEFT_SECONDS = 3600.0


def export(repository: Tree, target: Path, only: Iterable[tuple[str, str]] | None = None) -> int:
    """Copy the files that clients ask for. Meanwhile, readers see either the old releases or the new ones.

    Existing files are read and compared: a damaged file is written anew, and a file that others cannot read
    is made readable.

    Args:
        repository: published.
        target: directory to fill. Existing files with the same content are left alone.
        only: channels and architectures; all when left out.

    Returns:
        How many files were written.

    Raises:
        RepositoryError: not published, or a file cannot be copied.
    """
    wanted = list(only) if only is not None else repository.releases()
    written = 0
    # The order of a publication: files named by their hash, metadata with a version, the timestamp, and last
    # a newer root.
    with Target(target) as tree:
        for entry in repository.subset(wanted):
            if entry.path.startswith(blobs.PLACE):
                written += tree.blob(entry.file, entry.file.name)
        for channel, arch in wanted:
            for artifact in repository.manifest(channel, arch).artifacts.values():
                blob = repository.directory / blobs.PLACE / artifact.sha256
                names = ("targets", channel, arch, f"{artifact.sha256}.{artifact.name}")
                written += tree.link(blob, artifact.sha256, names)
        for name, data in sorted(repository.metadata(wanted).items(), key=lambda item: turn(item[0])):
            written += tree.metadata(name, data)
        tree.sweep([("metadata",), ("blobs", "sha256"), *(("targets", *each) for each in wanted)])
    return written


def turn(name: str) -> tuple[int, str]:
    """The place of a metadata file in the order of a publication."""
    first = name == "1.root.json"
    last = name.endswith("root.json") and not first
    return (0 if first else 3 if last else 2 if name == "timestamp.json" else 1, name)


class Target:
    """An open directory that is exported to; created if it does not exist.

    Args:
        path: as it was given; may be a link of this account.

    Raises:
        RepositoryError: it cannot be opened or created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._writing():
            if not path.is_dir():
                files.make_public(path)
            self._top = files.open_given(path)

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._top)

    def blob(self, source: Path, sha256: str) -> int:
        """Copy a blob, if it is missing; returns how many files were written."""
        with self._below("blobs", "sha256") as place:
            return _copy(source, place, sha256, sha256)

    def link(self, source: Path, sha256: str, names: tuple[str, ...]) -> int:
        """Give a blob a second name, if that is missing; returns how many files were written."""
        *directories, name = names
        with self._below("blobs", "sha256") as blobs_place, self._below(*directories) as place:
            if _same(blobs_place, sha256, place, name) or _holds(place, name, sha256):
                return 0
            try:
                files.link_at(blobs_place, sha256, place, name)
            except OSError as error:
                if error.errno not in files.NO_LINKS:
                    raise
                return _copy(source, place, name, sha256)
        return 1

    def metadata(self, name: str, data: bytes) -> int:
        """Write metadata, if it is missing; returns how many files were written."""
        return self.put(("metadata",), name, data)

    def put(self, directories: tuple[str, ...], name: str, data: bytes) -> int:
        """Write a small file, if it is missing or another; returns how many files were written."""
        with self._below(*directories) as place:
            if _is(place, name, data):
                return 0
            files.write_at(place, name, data)
        return 1

    def sweep(self, places: Iterable[tuple[str, ...]]) -> None:
        """Remove the files in these directories that killed exports have left."""
        for names in places:
            with self._below(*names) as place:
                _sweep(place)

    @contextmanager
    def _below(self, *names: str) -> Iterator[int]:
        """A directory in it, open, which everybody may read; created if it does not exist."""
        opened = os.dup(self._top)
        try:
            for position, name in enumerate(names):
                with self._writing(*names[: position + 1]):
                    opened, outer = files.open_directory(name, opened, make=True), opened
                    try:
                        files.share(opened, outer)
                    finally:
                        os.close(outer)
            with self._writing(*names):
                yield opened
        finally:
            os.close(opened)

    @contextmanager
    def _writing(self, *names: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = ""
            if error.errno in files.NOT_OURS:
                hint = "Something else has that name; no link is followed. Remove it, or export elsewhere."
            where = self._path.joinpath(*names)
            raise RepositoryError(f"{where} cannot be written: {error.strerror}", hint=hint) from error


def _copy(source: Path, place: int, name: str, sha256: str) -> int:
    if _holds(place, name, sha256):
        return 0
    with open(files.open_plain(source), "rb") as opened:
        files.copy_at(_Checked(opened, sha256, source), place, name)
    return 1


class _Checked:
    """A blob that is read, and refused at its end if it does not have its hash.

    Args:
        blob: open.
        sha256: the expected hash, hex.
        path: of the file, for people.
    """

    def __init__(self, blob: BinaryIO, sha256: str, path: Path) -> None:
        self._blob, self._sha256, self._path = blob, sha256, path
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes; empty at its end."""
        block = self._blob.read(size)
        self._digest.update(block)
        if not block and self._digest.hexdigest() != self._sha256:
            raise RepositoryError(
                f"{self._path} is not the blob that its name says", hint="Publish the release again."
            )
        return block


def _holds(place: int, name: str, sha256: str) -> bool:
    """Whether a file has this content. A power cut or a person may have changed it without its size."""
    opened = _open(place, name)
    if opened is None:
        return False
    with open(opened, "rb") as handle:
        return file_digest(handle, "sha256").hexdigest() == sha256 and _readable(opened)


def _is(place: int, name: str, data: bytes) -> bool:
    opened = _open(place, name)
    if opened is None:
        return False
    with open(opened, "rb") as handle:
        return handle.read(len(data) + 1) == data and _readable(opened)


def _readable(opened: int) -> bool:
    """Let everybody read a file; false if only another account can change that, so it must be replaced."""
    return files.expose(opened) or os.fstat(opened).st_uid == os.geteuid()


def _open(place: int, name: str) -> int | None:
    """An existing file; None if it is missing, or is not a file: that is replaced."""
    try:
        return files.open_plain(name, directory=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in files.NOT_OURS or isinstance(error, PermissionError):
            return None
        raise


def _same(one: int, name: str, other: int, other_name: str) -> bool:
    """Whether two names belong to one file."""
    try:
        found = os.stat(other_name, dir_fd=other, follow_symlinks=False)
        return os.path.samestat(os.stat(name, dir_fd=one, follow_symlinks=False), found)
    except FileNotFoundError:
        return False


def _sweep(place: int) -> None:
    """Remove the files that killed exports have left."""
    for name in os.listdir(place):
        if name.startswith(".") and name.endswith(".tmp"):
            with suppress(OSError):
                found = os.stat(name, dir_fd=place, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < time.time() - _LEFT_SECONDS:
                    os.unlink(name, dir_fd=place)
