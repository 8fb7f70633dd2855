"""Blobs that are open: answers that begin within a moment of each other read one open file."""

import asyncio
import os
from pathlib import Path

from phase import beneath

#: Seconds for which an open file is taken again; then a file of that name is opened anew.
KEEP_SECONDS = 0.25


class Open:
    """An open blob.

    Args:
        descriptor: of the file.
    """

    __slots__ = ("descriptor", "found", "kept", "readers")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        #: What it looked like when it was opened.
        self.found = os.fstat(descriptor)
        #: Answers that read it, and whether others may join.
        self.readers = 0
        self.kept = True


class Opened:
    """Opens the blobs of a repository.

    Args:
        directory: of the repository.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Open] = {}

    def take(self, digest: str) -> Open:
        """A blob, open until it is given back.

        Args:
            digest: its name.

        Raises:
            OSError: it cannot be opened.
        """
        found = self._open.get(digest)
        if found is None:
            found = Open(beneath.open_file(self._directory, f"blobs/sha256/{digest}"))
            self._open[digest] = found
            asyncio.get_running_loop().call_later(KEEP_SECONDS, self._let_go, digest, found)
        found.readers += 1
        return found

    def give_back(self, part: Open) -> None:
        """An answer no longer reads it."""
        part.readers -= 1
        _close_unused(part)

    def close(self) -> None:
        """Keep none."""
        for digest, part in list(self._open.items()):
            self._let_go(digest, part)

    def _let_go(self, digest: str, part: Open) -> None:
        if part.kept:
            del self._open[digest]
            part.kept = False
            _close_unused(part)


def _close_unused(part: Open) -> None:
    if not part.readers and not part.kept:
        os.close(part.descriptor)
