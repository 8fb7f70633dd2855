"""The client without asyncio: each call waits. One event loop runs in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

from phase.client.client import CONNECT_SECONDS, Client
from phase.client.task import Asked, Result, Task
from phase.identity import Identity
from phase.peer.messages import Description, JobStatus
from phase.peer.transport import Address

T = TypeVar("T")


class Loop:
    """An event loop in a thread. Use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="phase-client", daemon=True)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run something there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something there, and wait for it. An exception here, such as KeyboardInterrupt, cancels it."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class SyncClient:
    """As `Client`, for programs without asyncio. Use it as a context manager. Threads may share one.

    Args:
        identity: whose key the nodes must allow.
        relays: URLs, for nodes that cannot be reached directly.
        connect_seconds: to connect to a node.
    """

    def __init__(
        self, identity: Identity, *, relays: Iterable[str] = (), connect_seconds: float = CONNECT_SECONDS
    ) -> None:
        self._opening = Client.open(identity, relays=relays, connect_seconds=connect_seconds)
        self._loop = Loop()
        self._stack = AsyncExitStack()
        self._client: Client | None = None

    def __enter__(self) -> "SyncClient":
        self._loop.__enter__()
        try:
            self._client = self._loop.wait(self._stack.enter_async_context(self._opening))
        except BaseException:
            self._loop.__exit__()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.wait(self._stack.aclose())
        finally:
            self._client = None
            self._loop.__exit__()

    @property
    def asynchronous(self) -> Client:
        """The client that does the work, for coroutines that `start` runs.

        Raises:
            RuntimeError: it is not open.
        """
        if self._client is None:
            raise RuntimeError("this client is not open: use it in a `with` statement")
        return self._client

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run a coroutine in the client's loop."""
        return self._loop.start(work)

    def run(self, node: Address | str, task: Task, *, job: str | None = None) -> Result:
        """See `Client.run`."""
        return self._loop.wait(self.asynchronous.run(node, task, job=job))

    def detach(self, node: Address | str, task: Task, *, job: str | None = None) -> tuple[str, Asked]:
        """Leave a job to a node.

        Returns:
            Its id, and what its receipt must be of; both are for `fetch`.

        Raises:
            RejectedError, PeerError: see `Client.submit`.
        """

        async def submit() -> tuple[str, Asked]:
            made = await self.asynchronous.submit(node, task, job=job, detached=True)
            return made.job, made.asked

        return self._loop.wait(submit())

    def fetch(self, node: Address | str, job: str, asked: Asked | None = None) -> Result:
        """See `Client.fetch`."""
        return self._loop.wait(self.asynchronous.fetch(node, job, asked))

    def status(self, node: Address | str, job: str) -> JobStatus:
        """See `Client.status`."""
        return self._loop.wait(self.asynchronous.status(node, job))

    def cancel(self, node: Address | str, job: str) -> JobStatus:
        """See `Client.cancel`."""
        return self._loop.wait(self.asynchronous.cancel(node, job))

    def jobs(self, node: Address | str) -> tuple[JobStatus, ...]:
        """See `Client.jobs`."""
        return self._loop.wait(self.asynchronous.jobs(node))

    def describe(self, node: Address | str) -> Description:
        """See `Client.describe`."""
        return self._loop.wait(self.asynchronous.describe(node))
