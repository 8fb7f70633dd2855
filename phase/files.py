"""Writes files so that they are complete or absent, also after a power cut."""

import contextlib
import errno
import io
import os
import stat
from pathlib import Path
from typing import Protocol

#: Errors of link(2) if the file system has no hard links, or the file belongs to another account.
NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: Flags to open a file that must be new.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_PLAIN = "it is not a regular file"
#: Message for a name of a link, a pipe, a device or a directory.
NOT_OURS = (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ENXIO)


class Readable(Protocol):
    """An object that can be read block by block."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; empty at its end."""


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
        path: the new file.
        data: its content.
        mode: permission bits.

    Raises:
        FileExistsError: the file exists already; it stays as it is.
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
        # Without hard links (FAT, some network file systems) the name is taken first: a power cut between
        # the two lines leaves an empty file.
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
    """Make or replace a file with the content of a source, in one step.

    Args:
        source: read to its end.
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
    """Open a file that others may have written, without following a link or waiting for a pipe or device.

    Args:
        path: the file. Others must not change its directory meanwhile, unless that is open as `directory`.
        flags: of open(2), in addition to those that this needs.
        directory: descriptor of the directory of a bare name.
        follow: follow links all the same, if the person who names the file has made them.

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
        name: of the directory.
        directory: descriptor of the other one.
        make: create it if it does not exist.

    Returns:
        A file descriptor.

    Raises:
        OSError: it does not exist; or its name belongs to a link or a file.
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
    """Make a directory that everybody may read, for any umask, and the directories on the way to it.

    Accounts that share its parent (setgid, writable for its group) share it, too. Existing directories stay
    as they are.

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
    """Let everybody enter and list a directory, and its group write to it.

    The group only gets that right if it may write to the directory above.

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
        Whether everybody may now. Not if its file system keeps no modes, or it belongs to another account.
    """
    found = os.fstat(descriptor)
    wanted = (0o555 if stat.S_ISDIR(found.st_mode) else 0o444) | also
    if found.st_mode & wanted != wanted:
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) | wanted)
    return os.fstat(descriptor).st_mode & wanted == wanted


def open_given(path: Path) -> int:
    """Open a directory that a person has named, but not through a link that another user has made.

    Returns:
        A file descriptor.

    Raises:
        OSError: it does not exist, or its name belongs to a link of another user.
    """
    found = path.lstat()
    linked = stat.S_ISLNK(found.st_mode)
    if linked and found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "it is a link that another user has made")
    # A link that was made meanwhile is not followed.
    follow = 0 if linked else os.O_NOFOLLOW
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)


def link_at(source_directory: int, source: str, directory: int, name: str) -> None:
    """Give a file another name, in one step, replacing an existing file of that name.

    Args:
        source_directory: descriptor of the file's directory.
        source: its name there, which must not be a link.
        directory: descriptor of the directory for the other name.
        name: the other name.

    Raises:
        OSError: as usual; one of `NO_LINKS` if the kernel cannot make a hard link.
    """
    temporary = _temporary(name)
    os.link(source, temporary, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)
    try:
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        # If both names were one file already, both still exist.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
    sync(directory)


def _temporary(name: str) -> str:
    return f".{name[:32]}.{os.urandom(8).hex()}.tmp"


def sync_up(path: Path, top: Path) -> None:
    """Make the names in a directory and on the way to it durable.

    Args:
        path: the directory.
        top: the first directory on the way that existed before; it contains `path`.
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
    """Write all data at a position in a file; a single system call may write less.

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
