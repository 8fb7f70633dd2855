"""A queue that serves clients in turn: who brings many jobs waits behind the others with each of them."""

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of clients, each client's in their order."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[T]] = OrderedDict()
        # One that waits is woken for each item; for one that was taken out, somebody looks in vain.
        self._added = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    @property
    def waiting(self) -> bool:
        """Whether there are items; any thread may ask."""
        return bool(self._of)

    def put(self, client: str, item: T) -> None:
        """Add an item behind those of the same client."""
        self._of.setdefault(client, deque()).append(item)
        self._added.release()

    async def get(self) -> T:
        """Take the next item: of the client that has waited longest for its turn."""
        await self._added.acquire()
        while not self._of:
            await self._added.acquire()
        client, items = self._of.popitem(last=False)
        item = items.popleft()
        if items:
            self._of[client] = items  # at the end
        return item

    def remove(self, client: str, item: T) -> bool:
        """Take an item out; whether it was there."""
        items = self._of.get(client)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._of[client]
        return True

    def drain(self) -> list[T]:
        """Take all of them out."""
        found = [item for items in self._of.values() for item in items]
        self._of.clear()
        return found
