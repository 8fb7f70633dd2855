"""Opens files in a directory that others may write to, without leaving it through a link.

Links are followed as long as they stay below the directory; the directory itself may be reached by a link.
Each step of a path is opened from the step before, so a link that is made meanwhile is checked, too.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAX_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutsideError(OSError):
    """A link leads out of the directory."""


class IrregularError(OSError):
    """The path is a pipe, a device, a socket or a directory."""


class Beneath(NamedTuple):
    """A file below a directory.

    Attributes:
        root: the directory.
        path: relative to it, with slashes.
    """

    root: Path
    path: str

    def __str__(self) -> str:
        """The path, for people."""
        return str(self.root / self.path)

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open it to read.

        Args:
            mode: always `rb`.

        Raises:
            OutsideError: a link on the way leads out of the directory.
            IrregularError: it is not a plain file.
            OSError: as usual.
        """
        if mode != "rb":
            raise ValueError(f"{mode!r} is not a mode to read bytes")
        return os.fdopen(open_file(self.root, self.path), "rb")

    def stat(self) -> os.stat_result:
        """The facts of the file that `open` opens.

        Raises:
            OutsideError: a link on the way leads out of the directory.
            IrregularError: it is not a plain file.
            OSError: as usual.
        """
        descriptor = open_file(self.root, self.path)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)


def open_file(root: Path, path: str) -> int:
    """Open a plain file below a directory, to read.

    Args:
        root: the directory; may be a link.
        path: relative to it, with slashes.

    Returns:
        A file descriptor.

    Raises:
        OutsideError: a link on the way leads out of the directory.
        IrregularError: it is not a plain file.
        OSError: as usual.
    """
    with _walked(root, path) as (directory, name):
        _check(os.stat(name, dir_fd=directory, follow_symlinks=False), path)
        descriptor = os.open(name, _FILE, dir_fd=directory)
    try:
        _check(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def names(root: Path, path: str) -> list[str]:
    """The names in a directory below another, sorted.

    Args:
        root: the directory; may be a link.
        path: relative to it, with slashes; empty for itself.

    Raises:
        OutsideError: a link on the way leads out of the directory.
        OSError: as usual.
    """
    with _walked(root, f"{path}/.") as (directory, _):
        return sorted(os.listdir(directory))


def _check(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise IrregularError(errno.EINVAL, "not a plain file", path)


@contextmanager
def _walked(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """The directory that holds the last name of a path, with all links resolved, and that name."""
    stack = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        todo, links = deque(path.split("/")), 0
        while True:
            name = todo.popleft()
            if name == "..":
                if len(stack) == 1:
                    raise OutsideError(errno.EXDEV, f"a link leads out of {root}", path)
                os.close(stack.pop())
            elif name not in ("", "."):
                mode = os.stat(name, dir_fd=stack[-1], follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    todo.extendleft(reversed(_target(root, stack, name, path)))
                    continue
                if not todo:
                    yield stack[-1], name
                    return
                stack.append(os.open(name, _DIRECTORY, dir_fd=stack[-1]))
            if not todo:
                yield stack[-1], "."
                return
    finally:
        for descriptor in stack:
            os.close(descriptor)


def _target(root: Path, stack: list[int], name: str, path: str) -> list[str]:
    """The steps of a link's path; a link with an absolute path may lead back into the directory."""
    target = os.readlink(name, dir_fd=stack[-1])
    if not target.startswith("/"):
        return target.split("/")
    for top in (os.path.abspath(root), os.path.realpath(root)):
        if target == top or target.startswith(f"{top}/"):
            while len(stack) > 1:
                os.close(stack.pop())
            return target[len(top) :].split("/")
    raise OutsideError(errno.EXDEV, f"a link leads out of {root}", path)
