"""The hash of a whole artifact, taken beside its fetch: for who gives a file its hash as a name.

Chunks come in any order, and a hash goes from the start to the end. So a thread of its own reads the file
behind those that write it, as far as it is without gaps; what it reads is in the page cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Thread

from phase.fetch.transfer import Transfer


class WholeHash:
    """SHA-256 of what a transfer brings.

    Args:
        transfer: its chunks are read from its file as they arrive.
    """

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._hash = sha256()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def hexdigest(self) -> str:
        """The hash of a transfer that is complete; waits for what is not read yet."""
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
    """Hash the whole while it is fetched; whatever ends that ends the hashing, too."""
    found = WholeHash(transfer)
    try:
        yield found
    finally:
        transfer.end()
