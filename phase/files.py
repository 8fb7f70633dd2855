"""Files that are whole or absent, also when the power goes."""

import contextlib
import errno
import os
import stat
from pathlib import Path

#: What link(2) says where the file system has no hard links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
#: How a file is opened that must be new.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_PLAIN = "it is not a regular file"


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content in one step.

    Args:
        path: the file; its directory exists.
        data: the new content, written and synced before the name points to it.
        mode: permission bits.

    Raises:
        OSError: as usual; the old content is then still there.
    """
    temporary = put_beside(path, data, mode=mode)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make a file with its content in one step.

    Args:
        path: the file to be.
        data: its content.
        mode: permission bits.

    Raises:
        FileExistsError: there is one already; it stays as it is.
        OSError: as usual.
    """
    temporary = put_beside(path, data, mode=mode)
    try:
        # A link, because a rename would replace what another process made meanwhile.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The name is taken first where there are no hard links (FAT, some network file systems): a power
        # cut between the two lines leaves it empty.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def put_beside(path: Path, data: bytes, *, mode: int) -> Path:
    """Write a synced temporary file next to `path`; the caller renames or removes it."""
    temporary = path.parent / _temporary(path.name)
    descriptor = os.open(temporary, _NEW, mode)
    try:
        _fill(descriptor, data, mode)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def write_at(directory: int, name: str, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content in one step, in a directory that is open: its path may be changed by others.

    Args:
        directory: descriptor of the directory.
        name: of the file in it.
        data: the new content, written and synced before the name points to it.
        mode: permission bits.

    Raises:
        OSError: as usual; the old content is then still there.
    """
    temporary = _temporary(name)
    descriptor = os.open(temporary, _NEW, mode, dir_fd=directory)
    try:
        _fill(descriptor, data, mode)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    sync(directory)


def _fill(descriptor: int, data: bytes, mode: int) -> None:
    """Write, sync and close a new file."""
    with open(descriptor, "wb") as handle:
        os.fchmod(descriptor, mode)  # the umask may have taken bits away
        handle.write(data)
        handle.flush()
        os.fsync(descriptor)


def open_plain(path: Path | str, flags: int = os.O_RDONLY, *, directory: int | None = None) -> int:
    """Open a file where others may have written: no link is followed, no pipe or device waited for.

    Args:
        path: the file; nobody may change its directory meanwhile, or that is open as `directory`.
        flags: of open(2), more than those that see to this.
        directory: descriptor of the directory that a bare name is in.

    Returns:
        A file descriptor.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | more, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket, or a pipe without a reader
            raise OSError(error.errno, _NOT_PLAIN, str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _NOT_PLAIN, str(path))
    return descriptor


def open_directory(name: str, directory: int, *, make: bool = False) -> int:
    """Open a directory in another that is open, never through a link.

    Args:
        name: of it.
        directory: descriptor of the other one.
        make: whether to make it where there is none.

    Returns:
        A file descriptor.

    Raises:
        OSError: there is none; or a link, or something else, has its name.
    """
    if make:
        try:
            os.mkdir(name, 0o755, dir_fd=directory)
        except FileExistsError:
            pass
        else:
            sync(directory)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _temporary(name: str) -> str:
    return f".{name[:32]}.{os.urandom(8).hex()}.tmp"


def sync_up(path: Path, top: Path) -> None:
    """Make the names durable on the way to a directory and in it.

    Args:
        path: the directory.
        top: the first on the way that was there before; `path` is in it.
    """
    for directory in (path, *path.parents):
        sync_directory(directory)
        if directory == top:
            return


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(directory: int) -> None:
    """Make the names in an open directory durable, where the file system can."""
    # Some network file systems refuse; the rename itself is still atomic there.
    with contextlib.suppress(OSError):
        os.fsync(directory)


def pwrite(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of it at a place in a file: the system call may write less than it was given.

    Raises:
        OSError: as usual; some of it may be written.
    """
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]
        offset += written
