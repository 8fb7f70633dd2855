"""phase.client.copies and the command: which results are the same, and which input goes to another node."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from phase.cli import _submit
from phase.client import Client, RejectedError, Task
from phase.client.copies import _sides
from phase.jobs.receipt import Content
from phase.peer.messages import Reason
from phase.peer.transport import Address
from tests.phase.node.conftest import COPY, Start, wasm


async def test_nodes_whose_files_differ_disagree(start: Start) -> None:
    task = Task(module=wasm(COPY), inputs={"in": b"x"}, outputs=("out",), seed=0)
    async with start() as scene:
        one, two = [await scene.client.run(scene.address, task) for _ in range(2)]
    assert [len(side) for side in _sides([one, two])] == [2]
    other = msgspec.structs.replace(two.receipt, outputs={"out": Content("b" * 64, 1)})
    assert [len(side) for side in _sides([one, msgspec.structs.replace(two, receipt=other)])] == [1, 1]


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
