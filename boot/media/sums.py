"""`SHA256SUMS`, as sha256sum(1) reads it."""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from phase import files

NAME = "SHA256SUMS"
_LINE = re.compile(r"[0-9a-f]{64}  (.+)")


def write(directory: Path, paths: Sequence[Path]) -> Path:
    """Put the hashes of files into their directory's list; what it says of others stays.

    Args:
        directory: of the list.
        paths: files in it.

    Returns:
        The list's path.
    """
    place = directory / NAME
    new = {path.name: f"{_digest(path)}  {path.name}" for path in paths}
    with _alone(directory):
        before = place.read_text().splitlines() if place.exists() else []
        found = {match[1]: line for line in before if (match := _LINE.fullmatch(line))} | new
        files.write(place, ("\n".join(found[name] for name in sorted(found)) + "\n").encode(), mode=0o644)
    return place


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two builds may end at once: each adds its lines to what the other wrote."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
