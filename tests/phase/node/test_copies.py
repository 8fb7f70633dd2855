"""phase.client.copies and the command: which results are the same, and which input goes to another node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from phase.cli import _submit
from phase.client import Client, RejectedError, Result, Task, copies
from phase.client.copies import _sides
from phase.client.spread import Spread
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.receipt import Content
from phase.peer.messages import Reason
from phase.peer.transport import Address
from tests.phase.node.conftest import COPY, LOOP, Start, until, wasm


async def test_nodes_whose_files_differ_disagree(start: Start) -> None:
    task = Task(module=wasm(COPY), inputs={"in": b"x"}, outputs=("out",), seed=0)
    async with start() as scene:
        one, two = [await scene.client.run(scene.address, task) for _ in range(2)]
    assert [len(side) for side in _sides([one, two])] == [2]
    other = msgspec.structs.replace(two.receipt, outputs={"out": Content("b" * 64, 1)})
    assert [len(side) for side in _sides([one, msgspec.structs.replace(two, receipt=other)])] == [1, 1]


async def test_once_enough_nodes_agree_the_others_are_let_go(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(module=wasm(COPY), inputs={"in": b"x"}, outputs=("out",), seed=0)
    ended = []
    async with start() as scene:
        result = await scene.client.run(scene.address, task)

        async def run(place: Address, *_: Any, **__: Any) -> Result:
            if place.key.startswith("c"):
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(place.key)
            return result

        monkeypatch.setattr(scene.client, "run", run)
        async with asyncio.timeout(10):
            found = await copies.run(scene.client, [digit * 64 for digit in "cab"], task, 2)
    assert (len(found.agreed), found.failed, ended) == (2, {}, ["c" * 64])


async def test_a_program_that_gives_up_ends_its_job(start: Start) -> None:
    limits = Limits(fuel=MAX_INTEGER, wall_seconds=300)
    async with start() as scene:
        running = asyncio.create_task(
            scene.client.run(scene.address, Task(module=wasm(LOOP), limits=limits))
        )
        await until(lambda: scene.daemon.scheduler.running == 1)
        running.cancel()
        await until(lambda: scene.daemon.scheduler.running == 0)
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_spread_has_so_many_jobs_at_nodes_and_no_more() -> None:
    at_once: list[int] = []

    class Slow:
        """Counts the jobs that it has."""

        now = 0

        async def run(self, *_: Any) -> None:
            self.now += 1
            at_once.append(self.now)
            await asyncio.sleep(0)
            self.now -= 1

    spread = Spread(cast(Client, Slow()), ["a" * 64], most=3)
    await asyncio.gather(*(spread.run(Task(module=b"x")) for _ in range(20)))
    assert max(at_once) == 3


class _Taker:
    """Refuses each job, some after they have taken a part of its input."""

    key = "c" * 64

    def __init__(self, takes: bool) -> None:
        self._takes, self.asked = takes, 0

    async def submit(self, *_: Any, source: AsyncIterator[bytes], **__: Any) -> None:
        self.asked += 1
        if self._takes:
            await anext(source)
        raise RejectedError(Reason.INSUFFICIENT_RESOURCES, "no room")


@pytest.mark.parametrize(("takes", "asked"), [(False, 2), (True, 1)])
def test_input_that_a_node_has_begun_to_take_goes_to_no_other(takes: bool, asked: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    client = _Taker(takes)
    fields = {name: None for name in _submit.Options.__dataclass_fields__} | {"detach": False}
    options = _submit.Options(**cast(Any, fields))
    nodes = [Address(digit * 64, ("127.0.0.1:1",), ()) for digit in "ab"]
    with pytest.raises(RejectedError):
        asyncio.run(_submit._first(cast(Client, client), nodes, Task(module=b"x"), options, parts()))
    assert client.asked == asked
