"""Lets one process at a time sign in a directory. The kernel releases the lock of a process that dies.

Several accounts may publish into one repository: they need a group that may write to its directory.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

from phase import files
from phase.errors import printable
from phase.release.errors import RepositoryError

#: Seconds to wait for another process that is signing in the same directory.
LOCK_SECONDS = 60.0
_MAX_HOLDER = 120
#: Directories of a repository that publications write to, and the levels of directories below each.
_BELOW = {"metadata": 0, "blobs": 1, "targets": 2, "staged": 0, "publishing": 0, "publishing.new": 0}
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def repository(directory: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time sign in a repository: two could sign two files with the same version.

    Args:
        directory: the repository; created if it does not exist.
        tell: called with a line if it has to wait.

    Raises:
        RepositoryError: this account cannot write to all of it, a link leads out of it, or another process
            does not leave it.
    """
    with ExitStack() as stack:
        try:
            _prepare(directory)
            stack.enter_context(held(directory / ".lock", tell))
        except PermissionError as error:
            raise RepositoryError(
                f"{error.filename or directory} cannot be written: {error.strerror}",
                hint=f"Publish as the account that made {directory}, or share it with a group first.",
            ) from error
        except OSError as error:
            raise RepositoryError(f"{directory} cannot be written: {error.strerror}") from error
        yield


@contextmanager
def held(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        path: the file; created if it does not exist. An account that may write to its directory may lock it.
        tell: called with a line if it has to wait.

    Raises:
        RepositoryError: another process does not release it, or the file system has no locks.
        OSError: the file cannot be opened or created.
    """
    descriptor = files.open_plain(path, os.O_RDWR | os.O_CREAT)
    try:
        # A file with a second name may belong to a directory elsewhere.
        own = os.fstat(descriptor).st_nlink == 1
        if own:
            _share(descriptor, path.parent)
        _lock(descriptor, path.parent, tell)
        if own:
            _sign_in(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sign_in(descriptor: int) -> None:
    """Write down the holder, for processes that wait. The text counts only while the lock is held."""
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(descriptor, 0)
        files.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)


def _share(descriptor: int, directory: Path) -> None:
    """Share the lock with the group at most: any account that can open it can keep others waiting."""
    wanted = 0o660 if directory.stat().st_mode & stat.S_IWGRP else 0o600
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != wanted:
        with contextlib.suppress(PermissionError):  # another account made it
            os.fchmod(descriptor, wanted)


def _lock(descriptor: int, directory: Path, tell: Callable[[str], None]) -> None:
    until, told = monotonic() + LOCK_SECONDS, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = printable(os.pread(descriptor, _MAX_HOLDER, 0).decode("utf-8", "replace").strip())
            holder = holder or "another process"
            if monotonic() >= until:
                raise RepositoryError(
                    f"{holder} has been signing in {directory} for {LOCK_SECONDS:.0f} s",
                    hint="Wait until it is done, or see what it waits for.",
                ) from error
            if not told:
                tell(f"{holder} signs in {directory}; waiting for {LOCK_SECONDS:.0f} s at most")
                told = True
            sleep(0.05)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise RepositoryError(
                f"the file system of {directory} has no locks: {error.strerror}",
                hint="Choose a directory on a local file system.",
            ) from error


def _prepare(directory: Path) -> None:
    """Make the directory, and let others read its published part.

    Failures that would come in the middle of a publication are found before anything is signed.

    Raises:
        PermissionError: this account cannot write to a directory, or cannot replace the files of others
            there.
        OSError: a directory cannot be made.
    """
    if not directory.is_dir():
        files.make_public(directory)
    below = [*(directory / name for name in _BELOW), directory / "blobs/sha256"]
    for path in (directory, *below, *directory.glob("targets/*"), *directory.glob("targets/*/*")):
        if path.is_symlink():
            raise RepositoryError(
                f"{path} is a link: a repository is one directory",
                hint="Somebody may have put it there to lead elsewhere. Remove it.",
            )
        if not path.is_dir():
            continue
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        found = path.stat()
        if found.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid):
            raise PermissionError(
                errno.EPERM, "its sticky bit keeps this account from replacing what another wrote", str(path)
            )
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _let_in(descriptor, _BELOW)
    finally:
        os.close(descriptor)


def _let_in(above: int, names: Mapping[str, int]) -> None:
    """Let others into directories, by names in an open one, since a link may lead to private files.

    Args:
        above: descriptor of the directory that they are in.
        names: of directories, with the levels of directories below each.
    """
    for name, levels in names.items():
        try:
            descriptor = files.open_directory(name, above)
        except OSError:
            continue  # it does not exist, or is a link
        try:
            files.share(descriptor, above)
            if levels:
                _let_in(descriptor, dict.fromkeys(os.listdir(descriptor), levels - 1))
        finally:
            os.close(descriptor)
