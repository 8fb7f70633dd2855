"""What runs beside the answers of a provider: no task ends unseen, whatever it raises."""

import ast
import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import phase.provider
from phase.errors import PhaseError
from phase.provider import background, serve
from phase.provider.announce import Options
from phase.provider.background import Background, Task, in_thread
from phase.provider.together import Board
from tests.phase.provider.conftest import Publish

#: Names that start something that runs on its own. `asyncio.timeout` and timers of one connection do not.
_STARTERS = {
    "create_task",
    "ensure_future",
    "TaskGroup",
    "to_thread",
    "run_in_executor",
    "run_coroutine_threadsafe",
    "Thread",
    "Timer",
    "ThreadPoolExecutor",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", (0.02, 0.1))


def starters(source: str) -> set[str]:
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}
    return names & _STARTERS


def test_nothing_but_the_supervisor_starts_tasks_or_threads() -> None:
    files = sorted(Path(phase.provider.__file__).parent.glob("*.py"))
    found = {file.name: starters(file.read_text()) for file in files}
    assert found.pop("background.py") == {"create_task", "Thread"}
    assert not {name: used for name, used in found.items() if used}, "start it with Background"
    # The search itself finds them.
    assert starters("loop.create_task(x())\nThread(target=f)") == {"create_task", "Thread"}


async def health(port: int) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def until(port: int, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while not wanted(found := await health(port)):
                await asyncio.sleep(0.02)
            return found
    raise AssertionError(found)


@asynccontextmanager
async def everything(repository: Path) -> AsyncIterator[int]:
    """A provider with all of its tasks."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = serve(
        repository,
        bind="127.0.0.1",
        port=0,
        mdns=True,
        dht=Options(),
        upkeep=lambda: None,
        every=0.02,
        row=Board(1).row(0),
        ready=port.set_result,
        stop=stop,
        drain=1.0,
    )
    task = asyncio.ensure_future(serving)
    both: list[asyncio.Future[Any]] = [task, port]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield await port
    finally:
        stop.set()
        await task


@pytest.mark.parametrize("error", [OSError, ValueError, MemoryError, asyncio.CancelledError, SystemExit])
async def test_every_task_that_fails_is_said_counted_retried_and_healed(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[Any]
) -> None:
    caplog.set_level(logging.INFO)
    broken, begin = set[str](), Background._begin

    def sabotaged(self: Background, task: Task, work: background.Work, every: float) -> None:
        broken.add(task.name)

        async def run() -> None:
            if task.name in broken:
                raise error(f"trouble of {task.name}")
            await work()

        begin(self, task, run, every)

    monkeypatch.setattr(Background, "_begin", sabotaged)
    monkeypatch.setattr(background, "STEADY_SECONDS", 0.1)
    async with everything(publish()) as port:
        tasks = set(broken)
        assert tasks >= {"upkeep", "multicast DNS", "the DHT node", "telling the other processes"}

        def all_said(found: dict[str, Any]) -> bool:
            texts = [one["text"] for one in found["problems"] if one["part"] == "tasks"]
            return all(any(text.startswith(f"{name} failed") for text in texts) for name in tasks)

        found = await until(port, all_said)
        assert found["status"] == "degraded"
        for name in tasks:
            assert f"{name} failed, and is tried again" in caplog.text
        broken.clear()
        await until(port, lambda found: not any(one["part"] == "tasks" for one in found["problems"]))


async def test_a_task_that_ends_is_started_anew() -> None:
    runs = []

    async def short() -> None:
        runs.append(1)

    tasks = Background()
    tasks.start("short", short)
    await asyncio.sleep(0.2)
    assert len(runs) > 1
    assert "it ended, and should not" in tasks.found()[0].text
    assert tasks.failures["short"] >= len(runs) - 1
    await tasks.stop(1)


@pytest.mark.parametrize(
    "error", [kind("no kernel in there") for kind in (PhaseError, OSError, MemoryError)]
)
async def test_the_same_failure_is_said_once(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    async def fails() -> None:
        raise error

    tasks = Background()
    tasks.repeat("upkeep", fails, 0.01)
    await asyncio.sleep(0.3)
    await tasks.stop(1)
    assert caplog.text.count("no kernel in there") == 1
    assert tasks.failures["upkeep"] > 1
    assert not any(record.exc_info for record in caplog.records), "what is foreseen needs no traceback"


async def test_a_part_of_a_connection_that_fails_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise MemoryError

    tasks = Background()
    for _ in range(5):
        await tasks.once("a new connection", fails())
    assert tasks.failures == {"a new connection": 5}
    assert caplog.text.count("a new connection failed: MemoryError") == 1, "one line a second"


async def test_what_the_loop_has_nobody_to_tell_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Background()
    for _ in range(5):
        tasks.loop_failed(asyncio.get_running_loop(), {"message": "lost", "exception": ValueError("x")})
    assert tasks.failures == {"the event loop": 5}
    assert caplog.text.count("the event loop failed: lost: ValueError: x") == 1


async def test_a_round_that_hangs_is_shown_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "ROUND_SECONDS", 0.05)
    hold = threading.Event()

    async def hangs() -> None:
        await in_thread(hold.wait)

    tasks = Background()
    tasks.repeat("upkeep", hangs, 0.01)
    await asyncio.sleep(0.2)
    assert "upkeep has been at one round for" in tasks.found()[0].text
    begun = time.monotonic()
    await tasks.stop(5)
    assert time.monotonic() - begun < 1
    hold.set()


async def test_a_task_that_does_not_end_is_named(caplog: pytest.LogCaptureFixture) -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    tasks = Background()
    tasks.start("stubborn", stubborn)
    await asyncio.sleep(0.05)
    await tasks.stop(0.1)
    assert "the task stubborn does not end" in caplog.text
    released.set()
    await asyncio.sleep(0.05)


async def test_threads_give_back_what_they_find() -> None:
    def fails() -> None:
        raise SystemExit(3)

    assert await in_thread(lambda: 5) == 5
    with pytest.raises(SystemExit):
        await in_thread(fails)


async def test_a_short_task_that_ends_before_its_first_turn_leaves_no_coroutine() -> None:
    background = Background()

    async def work() -> None:
        raise AssertionError("it was to be stopped before")

    made = work()
    background.once("short", made)
    await background.stop(1)
    assert inspect.getcoroutinestate(made) == inspect.CORO_CLOSED
    assert not background.failures
