"""What this user has submitted: enough to find a job again, and to verify its receipt."""

import hashlib
import os
import time
from pathlib import Path

import msgspec

from phase import files
from phase.client.errors import ClientError
from phase.client.task import Asked
from phase.errors import PhaseError, reason
from phase.foreign import MalformedError, read_json
from phase.peer.address import Address

#: Jobs that are remembered; the oldest are forgotten.
REMEMBERED = 1000
#: Most bytes of one: arguments and variables have 128 KiB at most.
_MAX_BYTES = 2 << 20


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was submitted.

    Args:
        job: its id.
        node: the node's address, as text.
        asked: what its receipt must be of.
        submitted: seconds since the epoch.
    """

    job: str
    node: str
    asked: Asked
    submitted: float


class Book:
    """The jobs that were submitted from a state directory.

    Args:
        directory: made when something is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, remembered: Remembered) -> None:
        """Remember a job.

        Raises:
            PhaseError: it cannot be written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write(self._path(remembered), msgspec.json.encode(remembered), mode=0o600)
            for path in self._paths()[:-REMEMBERED]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise PhaseError(f"{self._directory} cannot be written: {reason(error)}") from error

    def find(self, job: str, node: str | None = None) -> Remembered | None:
        """The job of an id; None if it is not known here.

        Args:
            job: the id.
            node: key of the node; None for any, if one node has a job of this id.

        Raises:
            ClientError: several nodes have one.
        """
        found = [each for path in self._of(job, node) if (each := _read(path)) is not None]
        if len(found) > 1:
            places = " and ".join(each.node for each in found[:3])
            raise ClientError(f"there is a job {job} at {places}", hint="Name the node: --node KEY.")
        return found[0] if found else None

    def jobs(self) -> list[Remembered]:
        """All that are known, the newest first."""
        found = (_read(path) for path in reversed(self._paths()))
        return [each for each in found if each is not None]

    def _path(self, remembered: Remembered) -> Path:
        key = Address.parse(remembered.node).key
        for path in self._of(remembered.job, key):
            return path
        return self._directory / f"{time.time_ns():020d}-{_name(remembered.job)}-{_name(key)}.json"

    def _of(self, job: str, node: str | None) -> list[Path]:
        """The files of a job, at one node or at all."""
        return sorted(self._directory.glob(f"*-{_name(job)}-{_name(node) if node else '*'}.json"))

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*-*.json"))


def _name(text: str) -> str:
    """A part of a file's name: an id may hold characters that a name may not. Names begin with the time."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(path: Path) -> Remembered | None:
    try:
        opened = files.open_plain(path, os.O_RDONLY)
    except OSError:
        return None
    with open(opened, "rb") as file:
        data = file.read(_MAX_BYTES)
    try:
        return read_json(data, Remembered)
    except MalformedError:
        return None
