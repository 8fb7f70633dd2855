"""Results that are kept until their client comes for them: output and receipt of detached jobs, as files.

A job's directory begins with its outputs, which are written to while the job runs. The receipt comes last,
whole and synced: what has one is complete. The oldest are removed where there are too many.
"""

import hashlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from phase import files

#: Bytes of all results together; of one client's; and of the output of one job.
TOTAL_BYTES, CLIENT_BYTES, JOB_BYTES = 1 << 30, 256 << 20, 64 << 20
#: Results of one client.
CLIENT_JOBS = 256
#: Most bytes of a receipt, as `phase.dsse` reads envelopes.
_MAX_RECEIPT = 4 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

Name = Literal["stdout", "stderr"]


class Spool:
    """The open outputs of a job that runs.

    Args:
        directory: its own, new.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        self.directory = directory
        self.stdout = os.open(directory / "stdout", _NEW, 0o600)
        try:
            self.stderr = os.open(directory / "stderr", _NEW, 0o600)
        except OSError:
            os.close(self.stdout)
            raise

    def close(self) -> None:
        """Write nothing more. May be called twice."""
        for descriptor in (self.stdout, self.stderr):
            if descriptor >= 0:
                os.close(descriptor)
        self.stdout = self.stderr = -1


class Kept:
    """All kept results. Any thread may use it.

    Args:
        directory: made if it does not exist.
        total_bytes: of all.
        client_bytes: of one client's.

    Raises:
        OSError: the directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, *, total_bytes: int = TOTAL_BYTES, client_bytes: int = CLIENT_BYTES
    ) -> None:
        self._directory = directory
        self._total_bytes, self._client_bytes = total_bytes, client_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        #: Name of the directory to its bytes, the oldest first.
        self._sizes: OrderedDict[str, int] = OrderedDict(_found(directory))
        self._counting = threading.Lock()

    def begin(self, client: str, job: str) -> Spool:
        """Make room for a job's outputs.

        Raises:
            OSError: there is no room.
        """
        return Spool(self._directory / _name(client, job))

    def finish(self, client: str, job: str, receipt: bytes, left: Mapping[str, bytes] | None = None) -> None:
        """Keep the receipt of a job whose outputs are complete, and the files that it left.

        Raises:
            OSError: it cannot be written.
        """
        name = _name(client, job)
        directory = self._directory / name
        for output in ("stdout", "stderr"):
            _sync(directory / output)
        _add(directory, {_file(file): data for file, data in (left or {}).items()})
        files.write(directory / "receipt", receipt, mode=0o600)
        size = _size(directory)
        with self._counting:
            self._sizes[name] = size
            gone = self._too_many(client)
        for each in gone:
            shutil.rmtree(self._directory / each, ignore_errors=True)

    def drop(self, client: str, job: str) -> None:
        """Remove what there is of a job."""
        name = _name(client, job)
        with self._counting:
            self._sizes.pop(name, None)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def has(self, client: str, job: str) -> bool:
        """Whether the whole result of a job is there."""
        return _name(client, job) in self._sizes

    def output(self, client: str, job: str, name: Name) -> int | None:
        """A descriptor of an output, also of a job that still runs; None if there is none."""
        try:
            return files.open_plain(self._directory / _name(client, job) / name)
        except OSError:
            return None

    def file(self, client: str, job: str, name: str) -> int | None:
        """A descriptor of a file that a job left; None if there is none."""
        try:
            return files.open_plain(self._directory / _name(client, job) / _file(name))
        except OSError:
            return None

    def receipt(self, client: str, job: str) -> bytes | None:
        """The receipt of a job; None if there is none."""
        try:
            opened = files.open_plain(self._directory / _name(client, job) / "receipt")
        except OSError:
            return None
        with open(opened, "rb") as file:
            return file.read(_MAX_RECEIPT)

    def _too_many(self, client: str) -> list[str]:
        """The oldest, which must go, counted no more."""
        gone = []
        mine = [name for name in self._sizes if name.startswith(f"{client[:32]}-")]
        held = sum(self._sizes[name] for name in mine)
        while mine[1:] and (held > self._client_bytes or len(mine) > CLIENT_JOBS):
            gone.append(mine.pop(0))
            held -= self._sizes.pop(gone[-1])
        total = sum(self._sizes.values())
        while total > self._total_bytes and len(self._sizes) > 1:
            name, size = self._sizes.popitem(last=False)
            gone.append(name)
            total -= size
        return gone


def _name(client: str, job: str) -> str:
    """The directory's name: a job's id may hold characters that a file's name may not."""
    return f"{client[:32]}-{hashlib.sha256(f'{client}/{job}'.encode()).hexdigest()[:32]}"


def _file(name: str) -> str:
    return f"file-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _found(directory: Path) -> list[tuple[str, int]]:
    """Names and sizes of what is complete, the oldest first; what is not is removed."""
    found = []
    for path in directory.iterdir():
        receipt = path / "receipt"
        if receipt.is_file():
            found.append((receipt.stat().st_mtime, path.name, _size(path)))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return [(name, size) for _, name, size in sorted(found)]


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def _add(directory: Path, left: Mapping[str, bytes]) -> None:
    """Write files of a new directory: all, then the disk is waited for, once rather than for each."""
    for name, data in left.items():
        with open(os.open(directory / name, _NEW, 0o600), "wb") as file:
            file.write(data)
    for name in left:
        _sync(directory / name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
