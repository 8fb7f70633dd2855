"""Who may use something: everyone, some keys, or the keys in a file that may change at any time.

A file has a key on each line, 64 hex digits. What follows it, or a `#`, is for people.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from phase.errors import printable, unreadable
from phase.peer.errors import PeerError

_log = logging.getLogger(__name__)
OPEN = "open"
#: Limit for a file of keys, bytes.
MAX_FILE = 4 << 20
#: Seconds between two looks at whether a file has changed.
LOOK_SECONDS = 1.0
_KEY = re.compile("[0-9a-f]{64}")


class Allowed:
    """Decides by key.

    Args:
        given: each is a key of 64 hex digits, the path of a file with one key a line,
            or `open` for everyone.

    Raises:
        PeerError: one is neither, or its file cannot be read or holds something else. A file that turns bad
            later allows nobody, and is named in the log.
    """

    def __init__(self, given: Sequence[str]) -> None:
        self.everyone = OPEN in given
        texts = [each for each in given if each != OPEN]
        self._keys = frozenset(each.lower() for each in texts if _KEY.fullmatch(each.lower()))
        self._files = [_File(Path(each)) for each in texts if not _KEY.fullmatch(each.lower())]

    def __call__(self, key: str) -> bool:
        """Whether a key is allowed now."""
        return self.everyone or key in self._keys or any(each.has(key) for each in self._files)


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked, self._stamp = monotonic(), _stamp(path)
        self._keys = read_keys(path)

    def has(self, key: str) -> bool:
        if monotonic() - self._looked >= LOOK_SECONDS:
            self._look()
        return key in self._keys

    def _look(self) -> None:
        self._looked = monotonic()
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._keys = read_keys(self._path)
            except PeerError as error:
                _log.error("nobody is allowed by it any more: %s", error)
                self._keys = frozenset()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_key(text: str) -> bool:
    """Whether a text is a key, in either case."""
    return _KEY.fullmatch(text.lower()) is not None


def read_keys(path: Path) -> frozenset[str]:
    """The keys in a file.

    Raises:
        PeerError: it cannot be read, is too long, or holds something else; says where.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_FILE + 1)
    except OSError as error:
        raise PeerError(unreadable(path, error), hint=_HINT) from error
    if len(data) > MAX_FILE:
        raise PeerError(f"{path} has more than {MAX_FILE} bytes of keys", hint=_HINT)
    keys: set[str] = set()
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words and not is_key(words[0]):
            found = printable(words[0][:80])
            raise PeerError(f"line {number} of {path} is not a key: {found!r}", hint=_HINT)
        keys.update(word.lower() for word in words[:1])
    return frozenset(keys)


_HINT = "Give keys of 64 hex digits, as `phase init` shows them, a file with one a line, or `open`."
