"""An executor of `concurrent.futures` whose workers are nodes."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from phase.client.spread import Spread
from phase.client.sync import SyncClient
from phase.client.task import Result, Task
from phase.identity import Identity
from phase.peer.transport import Address

#: Jobs that are submitted and have not ended, of one executor: each has its task in memory.
WAITING = 10_000


class PeerExecutor(Executor):
    """Runs jobs on nodes: `submit(task)` gives the future of a verified `Result`, `map(run, tasks)` of many.

    Args:
        identity: whose key the nodes must allow.
        nodes: where.
        relays: URLs, for nodes that cannot be reached directly.
        waiting: jobs that are submitted and have not ended; with more, `submit` waits.

    Raises:
        ClientError: there is no node.
        PeerError: there is no network to use.
    """

    def __init__(
        self,
        identity: Identity,
        nodes: Sequence[Address | str],
        *,
        relays: Iterable[str] = (),
        waiting: int = WAITING,
    ) -> None:
        self._client = SyncClient(identity, relays=relays)
        self._client.__enter__()
        self._futures: set[Future[Any]] = set()
        self._room = threading.Semaphore(waiting)
        self._open = True
        try:
            self._spread = Spread(self._client.asynchronous, nodes)
        except BaseException:
            self._client.__exit__(None, None, None)
            raise

    def submit(self, task: Any, /, *args: Any, **more: Any) -> "Future[Any]":
        """Run a job; waits while too many have not ended.

        A keyword or argument for `Executor.submit` that is no task is refused.

        Args:
            task: a `Task`; or `run`, followed by one, as `map` calls it.
            args: none, or the task.
            more: none.

        Raises:
            TypeError: that is no task. Nodes run WebAssembly, not functions.
            RuntimeError: the executor is shut down.
        """
        found = args[0] if task is run and len(args) == 1 else task
        if not isinstance(found, Task) or more or (args and task is not run):
            raise TypeError("nodes run a phase.client.Task, and no function of Python")
        if not self._open:
            raise RuntimeError("the executor is shut down")
        self._room.acquire()
        try:
            if not self._open:
                raise RuntimeError("the executor was shut down")
            future = self._client.start(self._spread.run(found))
        except BaseException:
            self._room.release()
            raise
        self._futures.add(future)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: "Future[Any]") -> None:
        self._futures.discard(future)
        self._room.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more jobs.

        Args:
            wait: for the jobs that run; else they are cancelled.
            cancel_futures: cancel them all.
        """
        if not self._open:
            return
        self._open = False
        for future in list(self._futures):
            if cancel_futures or not wait:
                future.cancel()
        for future in list(self._futures):
            if not future.cancelled():
                future.exception()
        self._client.__exit__(None, None, None)


def run(task: Task) -> Result:
    """What `PeerExecutor.map` takes as its function: `executor.map(run, tasks)`."""
    raise TypeError("run(task) is for PeerExecutor.map alone")
