"""Files that are whole or absent, also when the power goes."""

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import Protocol

#: What link(2) says where there are none: the file system has none, or the file is another account's.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: How a file is opened that must be new.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_PLAIN = "it is not a regular file"
#: What is said of a name that something else has: a link, a pipe, a device, a directory.
NOT_OURS = (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ENXIO)


class Readable(Protocol):
    """What can be read block by block."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at its end."""


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
        if error.errno not in NO_LINKS:
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


def copy(source: Readable, path: Path, *, mode: int = 0o644) -> None:
    """Make or replace a file with what can be read, in one step.

    Args:
        source: is read to its end.
        path: the file; its directory exists.
        mode: permission bits.

    Raises:
        OSError: as usual; the old content is then still there.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copy_at(source, directory, path.name, mode=mode)
    finally:
        os.close(directory)


def copy_at(source: Readable, directory: int, name: str, *, mode: int = 0o644) -> None:
    """The same, in a directory that is open: its path may be changed by others.

    Args:
        source: is read to its end.
        directory: descriptor of the directory.
        name: of the file in it.
        mode: permission bits.

    Raises:
        OSError: as usual; the old content is then still there.
    """
    temporary = _temporary(name)
    descriptor = os.open(temporary, _NEW, mode, dir_fd=directory)
    try:
        with open(descriptor, "wb") as handle:
            os.fchmod(descriptor, mode)  # the umask may have taken bits away
            while block := source.read(1 << 20):
                handle.write(block)
            handle.flush()
            os.fsync(descriptor)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    sync(directory)


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
    copy_at(io.BytesIO(data), directory, name, mode=mode)


def _fill(descriptor: int, data: bytes, mode: int) -> None:
    """Write, sync and close a new file."""
    with open(descriptor, "wb") as handle:
        os.fchmod(descriptor, mode)  # the umask may have taken bits away
        handle.write(data)
        handle.flush()
        os.fsync(descriptor)


def open_plain(
    path: Path | str, flags: int = os.O_RDONLY, *, directory: int | None = None, follow: bool = False
) -> int:
    """Open a file where others may have written: no link is followed, no pipe or device waited for.

    Args:
        path: the file; nobody may change its directory meanwhile, or that is open as `directory`.
        flags: of open(2), more than those that see to this.
        directory: descriptor of the directory that a bare name is in.
        follow: follow links all the same: whoever names the file has made them.

    Returns:
        A file descriptor.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    more = (0 if follow else os.O_NOFOLLOW) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
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


def make_public(path: Path) -> None:
    """Make a directory that everybody may read, whatever the umask says, and those on the way to it.

    Where accounts share its parent (setgid, writable for its group), they share it too. What is there stays
    as it is.

    Raises:
        OSError: as usual.
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    except FileNotFoundError:
        make_public(path.parent)
        os.mkdir(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        share(descriptor, path.parent)
    finally:
        os.close(descriptor)


def share(descriptor: int, above: Path | int) -> None:
    """Let everybody enter and list a directory; and its group write to it, where they may to the one above.

    Args:
        descriptor: of the directory.
        above: the directory that it is in: its path, or a descriptor.
    """
    parent = os.stat(above)
    also = parent.st_mode & (stat.S_ISGID | stat.S_IWGRP)
    if also != stat.S_ISGID | stat.S_IWGRP:
        also = 0  # accounts share nothing here
    elif os.fstat(descriptor).st_gid != parent.st_gid:
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, -1, parent.st_gid)
    expose(descriptor, also=also)


def expose(descriptor: int, *, also: int = 0) -> bool:
    """Let everybody read an open file, or enter and list an open directory.

    Args:
        descriptor: of the file or directory.
        also: more permission bits to set.

    Returns:
        Whether everybody may now: its file system may keep no modes, or it is another account's.
    """
    found = os.fstat(descriptor)
    wanted = (0o555 if stat.S_ISDIR(found.st_mode) else 0o444) | also
    if found.st_mode & wanted != wanted:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | wanted)
    return os.fstat(descriptor).st_mode & wanted == wanted


def open_given(path: Path) -> int:
    """Open a directory that somebody has named; not by a link that another user has made.

    Returns:
        A file descriptor.

    Raises:
        OSError: there is none, or a link of another user has its name.
    """
    found = path.lstat()
    linked = stat.S_ISLNK(found.st_mode)
    if linked and found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "it is a link that another user has made")
    # A link that was put there since is not followed.
    follow = 0 if linked else os.O_NOFOLLOW
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)


def link_at(source_directory: int, source: str, directory: int, name: str) -> None:
    """Give a file another name, in one step, whatever has that name.

    Args:
        source_directory: descriptor of the directory that the file is in.
        source: its name there; no link.
        directory: descriptor of the directory for the other name.
        name: the other name.

    Raises:
        OSError: as usual; `NO_LINKS` where the kernel makes no hard link.
    """
    temporary = _temporary(name)
    os.link(source, temporary, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)
    try:
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # Where both were one file already, both names are still there.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
    sync(directory)


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
