"""The repository behind a running provider: the newest catalog that could be read."""

import logging
from pathlib import Path
from time import monotonic

from phase.provider import catalog
from phase.provider.catalog import Catalog
from phase.provider.errors import RepositoryError

_log = logging.getLogger(__name__)
#: Seconds between two looks at the timestamp, however many ask.
LOOK_SECONDS = 0.25


class Store:
    """A repository directory, read again when its timestamp changes.

    Args:
        directory: holds `metadata/` and `blobs/sha256/`.

    Raises:
        RepositoryError: it is no repository.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loads = 1
        #: Why the newest release could not be read; nothing while all is well.
        self.problem = ""
        self._stamp = catalog.stamp(directory)
        self._catalog = catalog.load(directory)
        self._looked = monotonic()

    def current(self) -> Catalog:
        """The catalog as of now. A release that cannot be read leaves the one before in place."""
        now = monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        return self._catalog

    def _look(self) -> None:
        try:
            found = catalog.stamp(self.directory)
            if found == self._stamp:
                return
            self._catalog = catalog.load(self.directory)
        except RepositoryError as error:
            if str(error) != self.problem:
                _log.warning("keeping the release before: %s", error)
            self.problem = str(error)
            return
        self._stamp = found
        self.problem = ""
        self.loads += 1
