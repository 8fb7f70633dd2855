"""Threads for what the disk can make slow, so that the event loop goes on meanwhile."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

#: Pieces of work at a time; others wait.
THREADS = 4
P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Some threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="phase-disk")

    async def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Call a function that reads or writes files. Once it has begun, it goes on to its end.

        Args:
            call: the function.
            args: for it.
            named: the same.

        Returns:
            Its result; its exceptions are raised here.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(call, *args, **named))

    async def made(
        self, call: Callable[P, T], undo: Callable[[T], object], *args: P.args, **named: P.kwargs
    ) -> T:
        """The same for what makes something, which nobody takes if the caller is cancelled.

        Args:
            call: makes it.
            undo: frees it.
            args: for `call`.
            named: the same.
        """
        running = self._threads.submit(functools.partial(call, *args, **named))
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            running.add_done_callback(functools.partial(_undone, undo))
            raise

    def close(self) -> None:
        """Begin nothing more; what has begun goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _undone(undo: Callable[[T], object], done: "Future[T]") -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result())
