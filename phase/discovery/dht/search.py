"""One search of the DHT, for programs without an event loop of their own."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Self

from phase.discovery.dht.announcement import Announcement, key
from phase.discovery.dht.node import Dht
from phase.discovery.records import DiscoveryError, Heard, Provider

#: Seconds between two searches that found nothing new.
_AGAIN_SECONDS = 2.0


class Search:
    """Searches in a thread until it is closed.

    Args:
        channel: wanted release channel.
        arch: wanted architecture.
        peers: nodes to begin with: hosts and ports.
        found: receives the providers found, also repeatedly.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        channel: str,
        arch: str,
        peers: Sequence[tuple[str, int]],
        found: "SimpleQueue[Heard]",
        *,
        clock: Callable[[], float],
    ) -> None:
        self._channel = channel
        self._arch = arch
        self._peers = peers
        self._found = found
        #: Why no node can be asked; empty if one can.
        self.problem = ""
        self._dht = Dht(serves=False, clock=clock)
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._run())
        self._thread = threading.Thread(target=self._work, name="dht", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the search, its thread and its socket."""
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass  # closed
        except DiscoveryError as error:
            self.problem = str(error)
        except Exception as error:
            # The search ends without a provider; its caller hears why.
            self.problem = f"the DHT failed: {error!r:.200}"
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))

    async def _run(self) -> None:
        await self._dht.start("0.0.0.0", 0)  # noqa: S104  # whichever way leads to them
        try:
            while True:
                if await self._dht.reach(self._peers):
                    await self._dht.look(key(self._channel, self._arch), self._tell)
                await asyncio.sleep(_AGAIN_SECONDS)
        finally:
            self._dht.close()

    def _tell(self, said: Announcement) -> None:
        found = Provider(said.url, self._channel, self._arch, said.version, "dht", said.key[:8])
        self._found.put(Heard(found, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
