"""One event loop in one thread that lives as long as the process: QMP runs on it, QEMUs start from it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The loop, started at first use."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="lab-loop", daemon=True).start()
        return _loop


def run(work: Coroutine[Any, Any, T], *, timeout: float = 30) -> T:
    """Run a coroutine on the loop and wait for it.

    Raises:
        TimeoutError: it took longer, and was cancelled.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result(timeout)
    finally:
        # Also on the way out of a Ctrl-C: nothing goes on unwatched.
        future.cancel()


def call(function: Callable[[], T], *, timeout: float = 30) -> T:
    """Call a function in the loop's thread.

    A child that asks to die with its parent (PR_SET_PDEATHSIG) dies with the *thread* that started
    it; this thread ends only with the process.
    """

    async def inside() -> T:
        return function()

    return run(inside(), timeout=timeout)
