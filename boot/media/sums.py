"""`SHA256SUMS`, as sha256sum(1) reads it."""

import hashlib
import re
from collections.abc import Sequence
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
    before = place.read_text().splitlines() if place.exists() else []
    found = {match[1]: line for line in before if (match := _LINE.fullmatch(line))}
    for path in paths:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        found[path.name] = f"{digest}  {path.name}"
    files.write(place, ("\n".join(found[name] for name in sorted(found)) + "\n").encode(), mode=0o644)
    return place
