"""A power cut at any operation on a disk: it and all that would come after it never happen."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: What changes a disk, by its first argument: a path or a descriptor.
_CHANGES = (
    "fsync", "ftruncate", "link", "mkdir", "open", "pwrite", "rename", "replace", "rmdir", "truncate",
    "unlink", "write",
)  # fmt: skip
_WRITES = os.O_CREAT | os.O_TRUNC


class CutError(BaseException):
    """The power is gone. Not an `Exception`: nothing goes on after it."""


class Power:
    """Counts the operations that change a directory, and cuts the power before one of them.

    Args:
        directory: the disk.
        at: before which operation, from 0.

    Attributes:
        done: operations so far.
    """

    def __init__(self, directory: Path, at: int) -> None:
        self._directory = str(directory)
        self._at = at
        self.done = 0
        #: Files with bytes that nobody has asked the disk to write down.
        self._loose: set[str] = set()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch this process until the patch is undone."""
        for name in _CHANGES:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def lose(self) -> None:
        """What was written and not synced is lost, but for the length of the files."""
        for path in self._loose:
            if os.path.exists(path):
                Path(path).write_bytes(bytes(Path(path).stat().st_size))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            place = self._place(words[0], named)
            if place.startswith(self._directory) and (name != "open" or words[1] & _WRITES):
                if self.done >= self._at:
                    raise CutError
                self.done += 1
                if name in ("pwrite", "write"):
                    self._loose.add(place)
                elif name == "fsync":
                    self._loose.discard(place)
            return real(*words, **named)

        return call

    @staticmethod
    def _place(what: "int | str | os.PathLike[str]", named: dict[str, Any]) -> str:
        if isinstance(what, int):
            return os.path.realpath(f"/proc/self/fd/{what}")
        path = os.fspath(what)
        directory = named.get("dir_fd", named.get("src_dir_fd"))
        return path if directory is None else f"{os.path.realpath(f'/proc/self/fd/{directory}')}/{path}"
