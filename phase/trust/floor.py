"""The floor: the versions below which nothing is trusted any more, and the file that keeps them."""

import os
from pathlib import Path

import msgspec

from phase.trust.errors import FormatError

_MAX_BYTES = 4 << 20


class Floor(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client remembers of its last refresh.

    Attributes:
        root: version of the root trusted last.
        timestamp: its version; 0 when nothing is remembered.
        snapshot: its version.
        meta: version of every file the snapshot named, by file name.
        keys: public keys of `timestamp` and `snapshot` at that time. Where they have changed since,
            the versions they vouched for are forgotten (TUF 1.0.34, 5.3.11): a thief of the old
            keys may have pushed them to the highest number there is.
        time: Unix seconds of the refresh; the clock does not go back behind it.
    """

    root: int = 0
    timestamp: int = 0
    snapshot: int = 0
    meta: dict[str, int] = {}
    keys: dict[str, list[str]] = {}
    time: int = 0


def load(path: Path) -> Floor:
    """Read a remembered floor.

    Args:
        path: a file written by `save`.

    Returns:
        The floor; an empty one if there is no file.

    Raises:
        FormatError: there is a file, but it holds no floor. Starting over from nothing would let
            old releases back in, so that is a person's decision.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise FormatError(f"trust state {path} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=Floor)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(
            f"trust state {path} is damaged: {error}",
            hint="Remove it only if you know that no older release can be offered here.",
        ) from error


def save(path: Path, floor: Floor) -> None:
    """Remember a floor, atomically.

    Raises:
        OSError: it cannot be written; the old one is then still there.
    """
    from phase import files

    os.makedirs(path.parent, exist_ok=True)
    files.write(path, msgspec.json.encode(floor) + b"\n", mode=0o600)
