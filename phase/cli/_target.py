"""Where `phase run` writes a receipt: opened before the module runs, written after it."""

import errno
import fcntl
import os
import re
import signal
import stat
import time
from pathlib import Path

from phase import files
from phase.errors import PhaseError

#: Seconds that a FIFO's reader has to appear.
PATIENCE = 5.0
#: Bytes kept free for a receipt with little in it.
_RECEIPT = 16 * 1024
_MAX_LINKS = 40


class Target:
    """A place for one receipt. Use as a context manager: without `write`, nothing changes there.

    - A regular file is replaced in one step, and a link to one stays a link.
    - A terminal, a FIFO or another character device is written to.
    - A descriptor of this process, such as /dev/stdout or /dev/fd/3, is written to as it is.

    Args:
        path: as the person gave it.
        module: the module's file, which must not be replaced.
        room: bytes to set aside beyond a small receipt.

    Raises:
        PhaseError: nothing can be written there.
    """

    def __init__(self, path: Path, *, module: Path, room: int = 0) -> None:
        self._shown = path
        self._descriptor = -1
        self._temporary: Path | None = None
        try:
            self._path = _follow(path)
            if isinstance(self._path, int):
                self._descriptor = _duplicate(self._path)
                return
            found = self._path.stat() if self._path.exists() else None
            if found is None or stat.S_ISREG(found.st_mode):
                if found is not None and os.path.exists(module) and os.path.samefile(self._path, module):
                    raise PhaseError(f"receipt {path} would replace the module", hint="Name another file.")
                self._prepare(self._path, _RECEIPT + room, exists=found is not None)
            else:
                self._descriptor = _open_special(self._path, found.st_mode)
        except OSError as error:
            self.close()
            raise self._unwritable(error) from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is open, and remove what was not written. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def write(self, data: bytes) -> None:
        """Write the receipt.

        Raises:
            PhaseError: it cannot be written; a file that was there is as it was.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if self._temporary is not None and isinstance(self._path, Path):
                os.ftruncate(self._descriptor, len(data))
                os.fsync(self._descriptor)
                self._replace(self._path, self._temporary, data)
        except OSError as error:
            raise self._unwritable(error) from error

    def _prepare(self, path: Path, room: int, *, exists: bool) -> None:
        if exists and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # A signal that ends this process between the file and its name here would leave the file behind.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            self._temporary = files.put_beside(path, b"", mode=0o644)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fallocate(self._descriptor, 0, room)
        except OSError as error:
            # Other errors come from file systems that cannot set room aside.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise

    def _replace(self, path: Path, temporary: Path, data: bytes) -> None:
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # One file that is mounted into a container cannot be replaced, only filled.
            with open(path, "wb") as file:
                file.write(data)
            return
        self._temporary = None
        files.sync_directory(path.parent)

    def _unwritable(self, error: OSError) -> PhaseError:
        hint = {
            errno.ENOENT: "Make its directory first.",
            errno.ENOSPC: "Make room there.",
            errno.ENXIO: "Start what reads it first.",
        }.get(error.errno or 0, "")
        return PhaseError(f"receipt {self._shown} cannot be written: {error.strerror or error}", hint=hint)


def _follow(path: Path) -> Path | int:
    """Follow links to the file that they mean; a number is a descriptor of this process."""
    for _ in range(_MAX_LINKS):
        parent = Path(os.path.realpath(path.parent))
        own = re.fullmatch(r"/proc/(\d+)/fd", str(parent))
        if own and int(own[1]) == os.getpid() and path.name.isdecimal():
            return int(path.name)
        path = parent / path.name
        if not path.is_symlink():
            return path
        owner = path.lstat().st_uid
        if owner not in (os.geteuid(), 0):
            raise PhaseError(f"receipt {path} is a link of user {owner}", hint="Name the file itself.")
        path = parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _duplicate(number: int) -> int:
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "it is open for reading only")
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10)


def _open_special(path: Path, mode: int) -> int:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        raise OSError(errno.EINVAL, "it is a block device or a socket")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            # Without O_NONBLOCK, a FIFO without a reader would be waited for without end.
            descriptor = os.open(
                path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(mode) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        os.set_blocking(descriptor, True)
        return descriptor
