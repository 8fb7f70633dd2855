"""The one place where a provider starts its background tasks.

A task that fails, with any exception, is logged, counted, shown in `/health` and started anew with
back-off. So no task ends unseen. Nothing else in this package makes tasks or threads; a test checks that.
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from phase.errors import PhaseError
from phase.provider.health import Part, Problem

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Makes the coroutine of a task.
Work = Callable[[], Coroutine[Any, Any, object]]
#: Seconds to the next try of a task that failed; doubled each time, up to the second number.
RETRY_SECONDS = (1.0, 60.0)
#: A task that was started anew counts as healthy after this many seconds.
STEADY_SECONDS = 10.0
#: Seconds that one round of a repeated task may take before it counts as trouble.
ROUND_SECONDS = 600.0
#: Seconds between two log lines about failures of short tasks of one name.
_ONCE_SECONDS = 1.0


@dataclass
class Task:
    """What is known of one task.

    Attributes:
        name: for people.
        failures: how often it has failed.
        problem: its last failure; empty while it works.
        begun: when its present run or round began, monotonic seconds; None between two rounds.
        repeats: whether it runs in rounds; otherwise it is one long run.
    """

    name: str
    repeats: bool
    failures: int = 0
    problem: str = ""
    begun: float | None = None

    def trouble(self) -> str:
        """What is wrong with it now; empty while it works."""
        running = monotonic() - self.begun if self.begun is not None else 0.0
        if self.problem and (self.repeats or running < STEADY_SECONDS):
            return f"{self.name} failed {self.failures} times, the last time: {self.problem}"
        if self.repeats and running > ROUND_SECONDS:
            return f"{self.name} has been at one round for {running:.0f} s"
        return ""


class Background:
    """The tasks of one provider.

    Args:
        failures: where to count failures, by the name of the task.
    """

    def __init__(self, failures: Counter[str] | None = None) -> None:
        #: The tasks that run as long as the provider, by name.
        self.tasks: dict[str, Task] = {}
        self.failures: Counter[str] = Counter() if failures is None else failures
        self._running: set[asyncio.Task[None]] = set()
        self._short: set[asyncio.Task[None]] = set()
        self._said_at: dict[str, float] = {}
        self._stopping = False

    def start(self, name: str, work: Work) -> None:
        """Run something that never ends. When it fails or ends, it is started anew.

        Args:
            name: for people; each name once.
            work: makes the coroutine.
        """
        self._begin(Task(name, repeats=False), work, 0.0)

    def repeat(self, name: str, work: Work, every: float) -> None:
        """Run something short again and again.

        Args:
            name: for people; each name once.
            work: makes the coroutine of one round.
            every: seconds between the end of a round and the next; a round that fails is tried again later.
        """
        self._begin(Task(name, repeats=True), work, every)

    def once(self, name: str, work: Coroutine[Any, Any, object]) -> "asyncio.Task[None]":
        """Run something short once, such as a part of one connection. Its failure is logged and counted.

        Args:
            name: of its kind, for people.
            work: the coroutine.
        """
        task = asyncio.get_running_loop().create_task(self._once(name, work))
        self._short.add(task)
        task.add_done_callback(self._short.discard)
        # A task that is cancelled before its first turn never takes up the coroutine.
        task.add_done_callback(lambda _: work.close())
        return task

    def found(self) -> list[Problem]:
        """What is wrong with the tasks now."""
        return [Problem(Part.TASKS, trouble) for task in self.tasks.values() if (trouble := task.trouble())]

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an error that no task has raised; this is an exception handler of an event loop."""
        error, message = context.get("exception"), str(context.get("message"))
        if isinstance(error, asyncio.InvalidStateError) and "_call_connection_lost" in message:
            # A defect of asyncio: a connection that is cut off during sendfile sets the result of a future
            # that was cancelled. asyncio gives no other sign of it than this message.
            return
        what = "the event loop"
        self._failed_once(what, error if isinstance(error, BaseException) else None, message)

    async def stop(self, seconds: float) -> None:
        """End all tasks. Those that do not end in time keep running and are named in the log.

        Args:
            seconds: how long to wait for them.
        """
        self._stopping = True
        tasks = self._running | self._short
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=seconds)
            for task in left:
                _log.warning("the task %s does not end within %.0f s; it is left", task.get_name(), seconds)

    def _begin(self, task: Task, work: Work, every: float) -> None:
        if task.name in self.tasks:
            raise ValueError(f"there is a task {task.name!r} already")
        self.tasks[task.name] = task
        running = asyncio.get_running_loop().create_task(self._keep(task, work, every), name=task.name)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def _keep(self, task: Task, work: Work, every: float) -> None:
        pause = 0.0
        shortest = min(max(every, 0.01), RETRY_SECONDS[0]) if task.repeats else RETRY_SECONDS[0]
        while True:
            began = task.begun = monotonic()
            error = await self._run(task, work)
            task.begun = None
            if error is None and task.repeats:
                self._well(task)
                pause = 0.0
                await asyncio.sleep(every)
                continue
            if monotonic() - began > RETRY_SECONDS[1]:
                pause = 0.0
            pause = min(max(2 * pause, shortest), RETRY_SECONDS[1])
            self._failed(task, error)
            await asyncio.sleep(pause)

    async def _run(self, task: Task, work: Work) -> BaseException | None:
        """One run; returns what it raised."""
        try:
            await work()
        except GeneratorExit:
            raise
        except BaseException as error:
            # A cancellation that a library raises by itself is its failure; only our own counts as one.
            if isinstance(error, asyncio.CancelledError) and cancelled():
                raise
            if self._stopping:
                _log.warning("the task %s failed while it ended: %s", task.name, describe(error))
                raise asyncio.CancelledError from error
            return error
        return None

    def _failed(self, task: Task, error: BaseException | None) -> None:
        text = describe(error) if error is not None else "it ended, and should not"
        task.failures += 1
        self.failures[task.name] += 1
        if text != task.problem:
            # Logging fails if memory is short: then the next round tries again.
            with contextlib.suppress(Exception):
                _log.error("%s failed, and is tried again: %s", task.name, text, exc_info=_evidence(error))
        task.problem = text

    def _well(self, task: Task) -> None:
        if task.problem:
            _log.info("%s works again", task.name)
        task.problem = ""

    async def _once(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and cancelled():
                raise
            self._failed_once(name, error)

    def _failed_once(self, name: str, error: BaseException | None, message: str | None = None) -> None:
        self.failures[name] += 1
        now = monotonic()
        if now - self._said_at.get(name, -_ONCE_SECONDS) >= _ONCE_SECONDS:
            self._said_at[name] = now
            with contextlib.suppress(Exception):
                text = ": ".join([*([message] if message else []), *([describe(error)] if error else [])])
                _log.error("%s failed: %s", name, text, exc_info=_evidence(error))


async def in_thread(call: Callable[[], _T]) -> _T:
    """Call a function that may block, in a thread that the end of the process does not wait for.

    Args:
        call: the function. The process may end in its middle, and that must damage nothing.

    Returns:
        The function's result; its exceptions are raised here.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[list[_T], BaseException | None]] = loop.create_future()

    def tell(outcome: tuple[list[_T], BaseException | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def work() -> None:
        outcome: tuple[list[_T], BaseException | None]
        try:
            outcome = ([call()], None)
        except BaseException as error:
            outcome = ([], error)
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=work, daemon=True, name="phase-provider").start()
    result, error = await done
    if error is not None:
        raise error
    return result[0]


def describe(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing or is not ours."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, PhaseError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _evidence(error: BaseException | None) -> BaseException | None:
    """The error with its traceback, if it is of an unexpected kind."""
    return None if isinstance(error, PhaseError | OSError | MemoryError) else error


def cancelled() -> bool:
    """Whether somebody has cancelled the task that asks; else what it waited for was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
