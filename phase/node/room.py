"""Bounds the bytes of what is on its way into memory, for each sender and for all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from phase.node.errors import RefusedError
from phase.peer.messages import Reason


class Room:
    """Some memory.

    Args:
        each: bytes that one sender may have under way.
        all: bytes of all senders together.
    """

    def __init__(self, each: int, all: int) -> None:
        self._each, self._all = each, all
        self._of: Counter[str] = Counter()

    @contextmanager
    def taken(self, sender: str, size: int) -> Iterator[None]:
        """Have room while something comes.

        Args:
            sender: by key or address.
            size: bytes, the most that it may have.

        Raises:
            RefusedError: there is too little left.
        """
        if self._of[sender] + size > self._each or self._of.total() + size > self._all:
            raise RefusedError(
                Reason.QUOTA, f"{self._of[sender]} bytes of you are on their way; try again later"
            )
        self._of[sender] += size
        try:
            yield
        finally:
            self._of[sender] -= size
            if not self._of[sender]:
                del self._of[sender]
