"""The repository behind a running provider: the newest catalog that could be read."""

import logging
import os
import time
from pathlib import Path
from time import monotonic

from phase.plausible import EARLIEST
from phase.provider import catalog
from phase.provider.catalog import Blob, Catalog
from phase.provider.errors import RepositoryError
from phase.provider.health import Part, Problem

_log = logging.getLogger(__name__)
#: Seconds between two looks at the timestamp, independent of the number of requests.
LOOK_SECONDS = 0.25
#: Seconds for which the blobs of a release are still served after the next one is published, for clients
#: that have fetched a part of it; and the limit for such releases.
KEEP_SECONDS = 3600.0
KEEP_RELEASES = 4
#: The look of a file: inode, modification time in nanoseconds, bytes.
Look = tuple[int, int, int]


def look_of(found: os.stat_result) -> Look:
    """The look of a file, which tells one state of it from another without reading it."""
    return found.st_ino, found.st_mtime_ns, found.st_size


class Store:
    """A repository directory, read again when its timestamp or newest root changes.

    Args:
        directory: holds `metadata/` and `blobs/sha256/`.

    Raises:
        RepositoryError: the directory is not a repository.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loads = 1
        #: By hash: the look of a blob when it was read and had another hash. It is not served.
        self.damaged: dict[str, Look] = {}
        #: Why the newest release could not be read; empty if it could.
        self.problem = ""
        self._stamp = catalog.stamp(directory)
        self._catalog = catalog.load(directory)
        #: Earlier catalogs, newest first, and until when they are served.
        self._before: list[tuple[float, Catalog]] = []
        self._looked = monotonic()

    def current(self) -> Catalog:
        """The catalog as of now. A release that cannot be read leaves the one before in place."""
        now = monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        return self._catalog

    def problems(self) -> list[Problem]:
        """The problems of the repository now."""
        offered, now = self.current(), time.time()
        found = [Problem(Part.REPOSITORY, self.problem)] if self.problem else []
        found += [
            Problem(Part.EXPIRY, f"the signature of {role} has expired: no machine believes what is served")
            for role, until in offered.expires.items()
            if until <= now
        ]
        found += [
            Problem(Part.REPOSITORY, f"nothing of {role} is served: {why}")
            for role, why in offered.refused.items()
        ]
        if now < EARLIEST:
            found.append(Problem(Part.CLOCK, "the clock of this machine was not set"))
        return found

    def warnings(self) -> list[Problem]:
        """The problems that will come soon, while there is still time to prevent them."""
        offered, now = self.current(), time.time()
        return [
            Problem(
                Part.EXPIRY,
                f"the signature of {role} ends in {(offered.expires[role] - now) / 86_400:.1f} days: "
                "its publisher must renew it",
            )
            for role, moment in offered.renew_by.items()
            if moment <= now < offered.expires[role]
        ]

    def lengths(self, sha256: str) -> frozenset[int] | None:
        """The lengths that releases give for a blob; None if no present or recent release names it."""
        return next((offer.blobs[sha256] for offer in self._offers() if sha256 in offer.blobs), None)

    def target(self, path: str) -> Blob | None:
        """The blob under this path. A recent release counts only if the path has the blob's hash."""
        now, *lately = self._offers()
        found = (offer.targets.get(path) for offer in lately)
        return now.targets.get(path) or next((blob for blob in found if blob and blob.sha256 in path), None)

    def _offers(self) -> list[Catalog]:
        """The newest catalog, and the earlier ones that are still served."""
        newest, now = self.current(), monotonic()
        return [newest, *(before for until, before in self._before if now < until)]

    def _look(self) -> None:
        try:
            found = catalog.stamp(self.directory)
            if found == self._stamp:
                self.problem = ""
                return
            newest = catalog.load(self.directory)
        except RepositoryError as error:
            if str(error) != self.problem:
                _log.warning("keeping the release before: %s", error)
            self.problem = str(error)
            return
        # A new timestamp or root alone is not a new release, so it must not push out an earlier one.
        if newest.blobs != self._catalog.blobs:
            self._before.insert(0, (monotonic() + KEEP_SECONDS, self._catalog))
            del self._before[KEEP_RELEASES:]
        self._catalog = newest
        self._stamp = found
        self.problem = ""
        self.loads += 1
