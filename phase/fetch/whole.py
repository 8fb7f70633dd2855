"""Computes the hash of a whole artifact during its fetch, for programs that name a file by its hash.

Chunks arrive in any order, and a hash needs them from start to end. So a thread of its own reads the file
behind the threads that write it, as far as it has no gaps; the data is still in the page cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Thread

from phase.fetch.transfer import Transfer


class WholeHash:
    """SHA-256 of the file of a transfer.

    Args:
        transfer: its chunks are read from its file as they arrive.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._hash = sha256()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def hexdigest(self) -> str:
        """The hash of a complete transfer; waits until all of it is read."""
        self._thread.join()
        return self._hash.hexdigest()

    def _follow(self) -> None:
        for index in range(len(self._transfer.artifact.chunks)):
            if not self._transfer.arrives(index):
                return
            try:
                self._hash.update(self._transfer.read(index))
            except BaseException as error:
                self._transfer.fail(error)
                return


@contextmanager
def followed(transfer: Transfer) -> Iterator[WholeHash]:
    """Hash the whole while it is fetched. The end of the fetch, by any cause, ends the hashing too."""
    found = WholeHash(transfer)
    try:
        yield found
    finally:
        transfer.end()
