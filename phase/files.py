"""Files that are whole or absent, also when the power goes."""

import errno
import os
from pathlib import Path


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
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def put_beside(path: Path, data: bytes, *, mode: int) -> Path:
    """Write a synced temporary file next to `path`; the caller renames or removes it."""
    temporary = path.parent / f".{path.name[:64]}.{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as handle:
            os.fchmod(descriptor, mode)  # the umask may have taken bits away
            handle.write(data)
            handle.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


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
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename itself is still atomic there
    finally:
        os.close(descriptor)


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
