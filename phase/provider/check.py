"""Checks that the blobs of the releases are there, and slowly reads them all to check their hashes."""

import asyncio
import errno
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import monotonic

from phase.beneath import Beneath
from phase.provider.background import in_thread
from phase.provider.health import Part, Problem
from phase.provider.limits import EXHAUSTED
from phase.provider.metrics import Metrics
from phase.provider.store import Look, Store, look_of

#: Seconds between two checks that all blobs are there, with the right size.
LOOK_SECONDS = 5.0
#: Bytes of one read, and seconds between two reads: 10 MB a second at most.
READ_BYTES = 1 << 20
READ_SECONDS = 0.1
#: Seconds of rest for each second of reading, to leave a slow machine time for its clients.
_REST = 9.0
#: Seconds after which a blob is read again although its inode, time and size have not changed.
AGAIN_SECONDS = 86_400.0
#: Files that are named in a problem; further ones are only counted.
_MAX_NAMED = 3


class BlobCheck:
    """The blobs of a store.

    Args:
        store: the repository.
        metrics: where to count.
        clock: monotonic seconds.
    """

    def __init__(self, store: Store, metrics: Metrics, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        #: By hash: why it cannot be served.
        self._missing: dict[str, str] = {}
        #: By hash: the look of a blob when it was read and had another hash.
        self._damaged = store.damaged
        #: By hash: the look of a blob when it was read and had its hash, and when that was.
        self._right: dict[str, tuple[Look, float]] = {}
        self._looks: dict[str, Look] = {}
        self._reading: _Reading | None = None

    def problems(self) -> list[Problem]:
        """The blobs that are missing or damaged."""
        named = self._store.current().blobs
        found = [f"blob {digest} {why}" for digest, why in self._missing.items() if digest in named]
        found += [
            f"blob {digest} is damaged: its bytes have another hash"
            for digest in self._damaged
            if digest in named
        ]
        if len(found) > _MAX_NAMED:
            found[_MAX_NAMED:] = [f"{len(found) - _MAX_NAMED} other blobs are missing or damaged, too"]
        return [Problem(Part.BLOBS, text) for text in found]

    async def look(self) -> None:
        """Check that all are there, with the right size."""
        named = self._store.current().blobs
        self._looks, self._missing = await in_thread(lambda: _look(self._store.directory, named))
        for digest, seen in list(self._damaged.items()):
            if self._looks.get(digest) != seen:
                del self._damaged[digest]
        good = named.keys() - self._missing.keys()
        self._right = {digest: right for digest, right in self._right.items() if digest in good}
        self._count(named)

    async def read_some(self) -> None:
        """Read a part of a blob whose hash is not checked yet, if there is one."""
        if self._reading is None and (digest := self._next()) is not None:
            self._reading = _Reading(self._store.directory, digest, self._looks[digest])
        if (reading := self._reading) is None:
            return
        begun = monotonic()
        try:
            done = await in_thread(reading.read)
        except OSError:
            self._reading = None  # the next check reports the problem
            self._looks.pop(reading.digest, None)
            return
        await asyncio.sleep(_REST * (monotonic() - begun))
        if not done:
            return
        self._reading = None
        self._damaged.pop(reading.digest, None)
        if reading.right():
            self._right[reading.digest] = (reading.look, self._clock())
        else:
            self._damaged[reading.digest] = reading.look
            self._right.pop(reading.digest, None)
        self._count(self._store.current().blobs)

    def _next(self) -> str | None:
        now = self._clock()
        for digest, look in self._looks.items():
            right = self._right.get(digest)
            known = right is not None and right[0] == look and now - right[1] < AGAIN_SECONDS
            if not known and self._damaged.get(digest) != look and digest not in self._missing:
                return digest
        return None

    def _count(self, named: dict[str, frozenset[int]]) -> None:
        self._metrics.blobs.update(
            {
                "named": len(named) - self._metrics.blobs["named"],
                "missing": len(self._missing) - self._metrics.blobs["missing"],
                "damaged": len(self._damaged) - self._metrics.blobs["damaged"],
                "verified": len(self._right) - self._metrics.blobs["verified"],
            }
        )


class _Reading:
    """One blob that is being read."""

    def __init__(self, directory: Path, digest: str, look: Look) -> None:
        self.digest = digest
        self.look = look
        self._place = Beneath(directory, f"blobs/sha256/{digest}")
        self._hash = sha256()
        self._read = 0

    def read(self) -> bool:
        """Read a part.

        The file is open for that moment only, so that none is left open when the provider ends.

        Returns:
            Whether that was the last part.

        Raises:
            OSError: it cannot be read, or has been replaced.
        """
        with self._place.open() as file:
            if look_of(os.fstat(file.fileno())) != self.look:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            file.seek(self._read)
            data = file.read(READ_BYTES)
        self._read += len(data)
        self._hash.update(data)
        return len(data) < READ_BYTES

    def right(self) -> bool:
        """Whether its bytes have the hash that is its name."""
        return self._hash.hexdigest() == self.digest


def _look(directory: Path, named: dict[str, frozenset[int]]) -> tuple[dict[str, Look], dict[str, str]]:
    looks: dict[str, Look] = {}
    missing: dict[str, str] = {}
    for digest, lengths in named.items():
        try:
            found = Beneath(directory, f"blobs/sha256/{digest}").stat()
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise  # this process lacks something, not the directory
            gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
            missing[digest] = f"{'is missing' if gone else 'cannot be read'}: {error.strerror}"
            continue
        looks[digest] = look_of(found)
        if found.st_size not in lengths:
            said = " or ".join(map(str, sorted(lengths)))
            missing[digest] = f"has {found.st_size} bytes, the release says {said}"
    return looks, missing
