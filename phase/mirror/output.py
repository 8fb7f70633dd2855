"""A directory that is filled from providers: others may write there, and two of us may fill it at once.

Everything below it is opened by name in a directory that is open already, and no link is followed. An
incomplete file has a random name of its own, and gets its real name when it is complete. After a crash, the
next process takes over incomplete files that are not locked. Where a file system has no locks, two may
write one such file: both write verified bytes only, to the same places, so that either's file is whole.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from phase import files
from phase.errors import PhaseError
from phase.fetch import FetchReport, fetch_artifact
from phase.fetch.transfer import Chunks, verified
from phase.fetch.way import DIRECT, Way
from phase.release.manifest import Artifact

_LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Output:
    """An open output directory; made where there is none.

    Args:
        path: as it was given.

    Raises:
        PhaseError: it cannot be one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = not os.path.lexists(path)
        with self.writing():
            path.mkdir(parents=True, exist_ok=True)
            self.descriptor = files.open_given(path)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is not None and self._made:
            # The fetch failed: an empty directory of its own is not left behind.
            with contextlib.suppress(OSError):
                self.path.rmdir()

    @contextmanager
    def writing(self, *names: str) -> Iterator[None]:
        """Say of an error where it was that something could not be written, and what helps."""
        try:
            yield
        except OSError as error:
            name = error.filename
            where = self.path.joinpath(*names, *([str(name)] if isinstance(name, str) else []))
            hint = ""
            if error.errno in _FULL:
                hint = "Make room there, or fill another directory; what has arrived is kept."
            elif error.errno in files.NOT_OURS:
                hint = "Something else has that name, and no link is followed. Remove it, or fill another."
            raise PhaseError(f"{where} cannot be written: {error.strerror or error}", hint=hint) from error

    @contextmanager
    def below(self, *names: str) -> Iterator[int]:
        """A directory in it, open; made where there is none."""
        with self.writing():
            opened = os.dup(self.descriptor)
        try:
            for position, name in enumerate(names):
                with self.writing(*names[:position]):
                    opened, outer = files.open_directory(name, opened, make=True), opened
                    os.close(outer)
            yield opened
        finally:
            os.close(opened)

    @contextmanager
    def locked(self, deadline: float, tell: Callable[[str], None]) -> Iterator[None]:
        """What is to be true of several files at once is done by one at a time, where there are locks.

        Args:
            deadline: `time.monotonic()` when to give up waiting.
            tell: gets a line if it has to wait.
        """
        # Only its owner can read it, so that no other user can hold the lock.
        with self.writing():
            lock = files.open_plain(_LOCK, os.O_RDWR | os.O_CREAT, directory=self.descriptor)
        try:
            told = False
            while _lock(lock) is False:
                if time.monotonic() >= deadline:
                    raise PhaseError(f"another process is still filling {self.path}")
                if not told:
                    tell(f"another process fills {self.path}; waiting")
                    told = True
                time.sleep(0.05)
            yield
        finally:
            os.close(lock)

    def fetch(
        self,
        artifact: Artifact,
        urls: Sequence[str],
        *,
        deadline: float,
        progress: Callable[[int, int], None],
        liars: set[str],
        way: Way = DIRECT,
        here: Chunks | None = None,
    ) -> FetchReport:
        """Fetch an artifact to its place; as `fetch_artifact`.

        What is there is checked like what comes from the network. It is never written to: it may be
        served meanwhile, or be the same file as one elsewhere.
        """
        with self.below("blobs", "sha256") as place, self.writing("blobs", "sha256"):
            there = _open(place, artifact.sha256, os.O_RDONLY)
            try:
                if there is not None and _whole(artifact, there):
                    progress(artifact.length, artifact.length)
                    return FetchReport(artifact.name, artifact.length, artifact.length, {}, {}, 0.0)
                name, part = _taken_over(place, artifact.sha256) or _begun(place, artifact, there)
                try:
                    report = fetch_artifact(
                        artifact,
                        urls,
                        part,
                        deadline=deadline,
                        progress=progress,
                        resume=True,
                        liars=liars,
                        whole=True,
                        way=way,
                        here=here,
                    )
                    os.ftruncate(part, artifact.length)
                    # On the disk before anything there says that it is: after a power cut it may be served.
                    os.fsync(part)
                    _name(place, name, part, artifact.sha256)
                finally:
                    os.close(part)
            finally:
                if there is not None:
                    os.close(there)
            files.sync(place)
        return report

    def sweep(self) -> None:
        """Remove unfinished files to which no process writes any more, where locks can tell."""
        with self.below("blobs", "sha256") as place:
            for left in _parts(place):
                try:
                    part = files.open_plain(left, directory=place)
                except OSError:
                    continue
                with contextlib.suppress(OSError):
                    if _lock(part) and _is(place, left, part):
                        os.unlink(left, dir_fd=place)
                os.close(part)


def _lock(descriptor: int) -> bool | None:
    """Lock a file; false where another process has, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _open(place: int, name: str, flags: int) -> int | None:
    """A regular file; None where there is none, or something else, which is replaced and not read."""
    try:
        return files.open_plain(name, flags, directory=place)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EINVAL):
            return None
        raise


def _whole(artifact: Artifact, descriptor: int) -> bool:
    """Whether a file is what its name says, and what was signed."""
    if os.fstat(descriptor).st_size != artifact.length:
        return False
    whole, held = sha256(), 0
    for _, block in verified(artifact, descriptor):
        whole.update(block)
        held += 1
    return held == len(artifact.chunks) and whole.hexdigest() == artifact.sha256


def _parts(place: int, of: str = "") -> list[str]:
    """Names of what is not complete: all, or of one blob."""
    return sorted(name for name in os.listdir(place) if name.startswith(f".{of}") and name.endswith(".part"))


def _is(place: int, name: str, descriptor: int) -> bool:
    """Whether a name is still that of an open file."""
    try:
        found = os.stat(name, dir_fd=place, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def _taken_over(place: int, sha256: str) -> tuple[str, int] | None:
    """What another fetch has left of an artifact and does not write to any more; its new name."""
    for left in _parts(place, sha256):
        try:
            part = files.open_plain(left, os.O_RDWR, directory=place)
        except OSError:
            continue  # not ours to write to, or no file at all
        try:
            # One with a second name may be a file elsewhere.
            if os.fstat(part).st_nlink == 1 and _lock(part) is not False:
                name = _part(sha256)
                os.rename(left, name, src_dir_fd=place, dst_dir_fd=place)
                if _is(place, name, part):
                    return name, part
        except OSError:
            pass  # another was quicker
        os.close(part)
    return None


def _begun(place: int, artifact: Artifact, there: int | None) -> tuple[str, int]:
    """A new file for an artifact, with what is there of it already."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = _part(artifact.sha256)
        part = os.open(name, flags, 0o644, dir_fd=place)
        if _lock(part) is not False and _is(place, name, part):
            break
        os.close(part)  # another has taken it over in this very moment
    for index, block in verified(artifact, there) if there is not None else ():
        files.pwrite(part, block, artifact.starts[index])
    return name, part


def _part(sha256: str) -> str:
    return f".{sha256}.{os.urandom(8).hex()}.part"


def _name(place: int, name: str, part: int, sha256: str) -> None:
    """Give a complete file its name."""
    # Without locks another fetch may have taken over the file, under another name, or have named it.
    for each in (name, *_parts(place, sha256)):
        if _is(place, each, part):
            os.replace(each, sha256, src_dir_fd=place, dst_dir_fd=place)
            return
    if not _is(place, sha256, part):
        raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile", name)
