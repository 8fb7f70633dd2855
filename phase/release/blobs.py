"""The blobs of a repository: files under their own hash, hashed once while they are copied."""

import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from phase import files
from phase.beneath import Beneath
from phase.errors import unreadable
from phase.release import cut
from phase.release.errors import RepositoryError
from phase.release.manifest import CHUNK_SIZE, MAX_CHUNKS

#: The directory of blobs in a repository.
PLACE = "blobs/sha256"
#: The file of an artifact: any file, or one that must not lead out of a directory.
Source = Path | Beneath


class Hashed(NamedTuple):
    """The facts about a file that are signed.

    Attributes:
        length: bytes.
        sha256: of the whole, hex.
        chunks: of each `CHUNK_SIZE` bytes, hex; for readers of format 1.
        cut: the list of chunks that are cut by content, as `phase.release.cut.write` returns it.
    """

    length: int
    sha256: str
    chunks: tuple[str, ...]
    cut: str


def hash_artifact(path: Source) -> Hashed:
    """Hash a file, whole and in chunks, in one pass.

    Raises:
        RepositoryError: it cannot be read, is empty or is too large.
    """
    try:
        with open_source(path) as source:
            return _pass(source, None, path)
    except OSError as error:
        raise RepositoryError(unreadable(f"artifact {path}", error)) from error


def store(directory: Path, path: Source) -> Hashed:
    """Copy a file to its place among the blobs.

    The copy is hashed, so a blob has its hash even if the file changes meanwhile. The file stays in its
    place, and may change later without harm.

    Args:
        directory: the repository's `blobs/sha256`.
        path: the artifact.

    Raises:
        RepositoryError: it cannot be read or stored.
    """
    temporary = directory / f".{secrets.token_hex(8)}.tmp"
    try:
        files.make_public(directory)
        files.sync_directory(directory.parent)
        with open_source(path) as source, temporary.open("xb") as copy:
            hashed = _pass(source, copy, path)
            copy.flush()
            os.fsync(copy.fileno())
            os.fchmod(copy.fileno(), 0o444)
        os.replace(temporary, directory / hashed.sha256)
        files.sync_directory(directory)
    except OSError as error:
        raise RepositoryError(f"{path} cannot be stored in {directory}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return hashed


def place(blob: Path, link: Path) -> None:
    """Give a blob a second name: a hard link, or a copy if the kernel refuses a link.

    It refuses one on file systems without hard links, and for the blob of another account: Linux only links
    files that the account may write to (`fs.protected_hardlinks`).

    Args:
        blob: the file.
        link: the new name. Its directory exists, and no file has this name.

    Raises:
        OSError: the name cannot be made.
    """
    try:
        os.link(blob, link)
    except OSError as error:
        if error.errno not in files.NO_LINKS:
            raise
        with open_source(blob) as source:
            files.copy(source, link, mode=0o444)


def open_source(path: Source) -> BinaryIO:
    """Open a plain file, and refuse others: a pipe may block, and a device has no end."""
    if isinstance(path, Beneath):
        return path.open()
    return open(files.open_plain(path, follow=True), "rb")


class _Even:
    """Hashes of what passes, for each `CHUNK_SIZE` bytes."""

    def __init__(self) -> None:
        self.chunks: list[str] = []
        self._hash = sha256()
        self._room = CHUNK_SIZE

    def update(self, data: memoryview) -> None:
        """Take the next bytes, of any number."""
        while data:
            part, data = data[: self._room], data[self._room :]
            self._hash.update(part)
            self._room -= len(part)
            if not self._room:
                self.end()

    def end(self) -> None:
        """End the chunk, if it has begun."""
        if self._room < CHUNK_SIZE:
            self.chunks.append(self._hash.hexdigest())
            self._hash, self._room = sha256(), CHUNK_SIZE


def _pass(source: BinaryIO, copy: BinaryIO | None, path: Source) -> Hashed:
    whole, even = sha256(), _Even()
    chunks: list[tuple[int, bytes]] = []
    length = 0
    for chunk in cut.cutter(os.fstat(source.fileno()).st_size).cut_stream(source):
        whole.update(chunk.data)
        even.update(chunk.data)
        chunks.append((chunk.length, sha256(chunk.data).digest()))
        length += chunk.length
        if len(chunks) > MAX_CHUNKS or len(even.chunks) > MAX_CHUNKS:
            raise RepositoryError(f"artifact {path} is too long: {length} bytes have {MAX_CHUNKS} chunks")
        if copy is not None:
            copy.write(chunk.data)
    even.end()
    if not length:
        raise RepositoryError(f"artifact {path} is empty", hint="Was its build interrupted?")
    return Hashed(length, whole.hexdigest(), tuple(even.chunks), cut.write(chunks))
