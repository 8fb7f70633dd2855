"""Which node a job goes to, and which results are the same, with nodes that do as they are told."""

import asyncio
import threading
from typing import Any, cast

import msgspec
import pytest

from phase.client import Client, ClientError, NotRunError, RejectedError, Result, Task, UntrueError, copies
from phase.client import spread as spreading
from phase.client.copies import DisagreedError
from phase.client.executor import PeerExecutor
from phase.client.spread import Spread
from phase.client.verify import counted
from phase.identity import Identity
from phase.jobs.receipt import EngineRef, JobRef, Receipt
from phase.jobs.status import Exited
from phase.peer.errors import PeerError
from phase.peer.messages import Reason, State
from phase.peer.transport import Address

A, B, C = (digit * 64 for digit in "abc")
TASK = Task(module=b"x", seed=1)


def result(node: str, *, stdout: bytes = b"out", stderr: bytes = b"", code: int = 0) -> Result:
    """What a node says that came of the task."""
    receipt = Receipt(
        job=JobRef("job", ""),
        module=TASK.content,
        args=(),
        env={},
        stdin=counted(b""),
        stdout=counted(stdout),
        stderr=counted(stderr),
        limits=TASK.limits,
        status=Exited(code),
        fuel_used=1,
        memory_bytes=1,
        engine=EngineRef("wasmtime", "1", "x86_64"),
        started="2026-01-01T00:00:00.000Z",
        finished="2026-01-01T00:00:00.000Z",
        wall_ms=1.0,
        node=node,
        seed=1,
    )
    return Result(
        status=Exited(code), stdout=stdout, stderr=stderr, receipt=receipt, envelope=b"{}", node=node
    )


class Nodes:
    """Answers as each node was told to: a list of errors and then results, or a function."""

    def __init__(self, **said: Any) -> None:
        self._said = said
        self.asked: list[tuple[str, int]] = []
        self.jobs: list[str | None] = []

    async def run(self, node: Address, task: Task, *, job: str | None = None) -> Result:
        self.asked.append((node.key[0], task.attempt))
        self.jobs.append(job)
        said = self._said.get(node.key[0], [])
        if callable(said):
            return cast(Result, await said())
        if said:
            answer = said.pop(0)
            if isinstance(answer, Result):
                return answer
            raise answer
        return result(node.key)

    def spread(self, *nodes: str) -> Spread:
        return Spread(cast(Client, self), nodes)

    async def copies(
        self, nodes: list[str], wanted: int, task: Task = TASK, **more: Any
    ) -> copies.Agreement:
        return await copies.run(cast(Client, self), nodes, task, wanted, **more)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, without waiting."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    return found


async def test_a_job_goes_to_the_node_that_has_the_fewest() -> None:
    go = asyncio.Event()

    async def later() -> Result:
        await go.wait()
        return result(A)

    nodes = Nodes(a=later, b=later)
    spread = nodes.spread(A, B)
    running = [asyncio.ensure_future(spread.run(TASK)) for _ in range(4)]
    await asyncio.wait(running, timeout=0.05)
    assert [node for node, _ in nodes.asked] == ["a", "b", "a", "b"]
    go.set()
    await asyncio.gather(*running)
    # All have ended, and none counts any more: the first node is the first again.
    await spread.run(TASK)
    assert nodes.asked[-1][0] == "a"


async def test_a_node_that_failed_has_no_more_of_ours_than_before() -> None:
    nodes = Nodes(a=[PeerError("gone"), PeerError("gone")])
    spread = nodes.spread(A, B)
    for _ in range(3):
        await spread.run(TASK)
    assert [node for node, _ in nodes.asked] == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize("reason", sorted(spreading.ELSEWHERE, key=str))
async def test_what_one_node_refuses_another_may_take(reason: Reason) -> None:
    nodes = Nodes(a=[RejectedError(reason)])
    assert (await nodes.spread(A, B).run(TASK)).node == B


@pytest.mark.parametrize("reason", [Reason.INVALID_REQUEST, Reason.DUPLICATE])
async def test_what_every_node_would_refuse_is_asked_of_one(reason: Reason) -> None:
    nodes = Nodes(a=[RejectedError(reason)])
    with pytest.raises(RejectedError) as caught:
        await nodes.spread(A, B).run(TASK)
    assert (caught.value.reason, nodes.asked) == (reason, [("a", 1)])


async def test_a_job_that_was_handed_back_is_another_attempt() -> None:
    nodes = Nodes(a=[NotRunError(State.RETURNED)], b=[NotRunError(State.RETURNED)])
    task = msgspec.structs.replace(TASK, attempt=4)
    assert (await nodes.spread(A, B, C).run(task)).node == C
    assert nodes.asked == [("a", 4), ("b", 5), ("c", 6)]


@pytest.mark.parametrize("state", [State.CANCELLED, State.FAILED])
async def test_a_job_that_ended_goes_nowhere_else(state: State) -> None:
    nodes = Nodes(a=[NotRunError(state)])
    with pytest.raises(NotRunError):
        await nodes.spread(A, B).run(TASK)
    assert nodes.asked == [("a", 1)]


async def test_a_result_that_is_not_proven_goes_nowhere_else() -> None:
    nodes = Nodes(a=[UntrueError("a lie")])
    with pytest.raises(UntrueError):
        await nodes.spread(A, B).run(TASK)
    assert nodes.asked == [("a", 1)]


@pytest.mark.parametrize(
    "last", [PeerError("gone"), RejectedError(Reason.NOT_AUTHORISED), NotRunError(State.RETURNED)]
)
async def test_the_last_failure_is_told_when_none_can_pass(last: Exception, pauses: list[float]) -> None:
    nodes = Nodes(a=[PeerError("gone")], b=[last])
    with pytest.raises(type(last)) as caught:
        await nodes.spread(A, B).run(TASK)
    assert (caught.value, pauses) == (last, [])


@pytest.mark.parametrize("full", [Reason.QUEUE_FULL, Reason.QUOTA])
async def test_full_nodes_are_asked_again_less_and_less_often(full: Reason, pauses: list[float]) -> None:
    refusals = [RejectedError(full) for _ in range(9)]
    nodes = Nodes(a=[PeerError("gone")] * 9, b=refusals)
    assert (await nodes.spread(A, B).run(TASK)).stdout == b"out"
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_there_has_to_be_a_node() -> None:
    with pytest.raises(ClientError, match="there is no node to give jobs to"):
        Nodes().spread()


def test_an_executor_without_a_node_leaves_nothing_behind() -> None:
    with pytest.raises(ClientError, match="there is no node to give jobs to"):
        PeerExecutor(Identity.ephemeral(), [])
    assert "phase-client" not in {each.name for each in threading.enumerate()}


async def test_nodes_that_say_the_same_agree_in_the_order_of_their_names() -> None:
    nodes = Nodes(b=[result(B, stdout=b"other")])
    found = await nodes.copies([A, B, C], 2, job="mine")
    assert [each.node for each in found.agreed] == [A, C]
    assert [each.node for each in found.others] == [B]
    assert (found.result.node, found.failed, nodes.jobs) == (A, {}, ["mine"] * 3)


@pytest.mark.parametrize("other", [{"stdout": b"x"}, {"stderr": b"x"}, {"code": 1}])
async def test_all_that_a_job_leaves_is_compared(other: dict[str, Any]) -> None:
    with pytest.raises(DisagreedError, match="1 and 1 agree") as caught:
        await Nodes(a=[result(A, **other)]).copies([A, B], 2)
    assert caught.value.failed == {}
    assert [[each.node for each in side] for side in caught.value.sides] == [[A], [B]]


async def test_a_node_without_a_result_does_not_agree() -> None:
    gone = PeerError("gone")
    nodes = Nodes(b=[gone])
    found = await nodes.copies([A, B, C], 2)
    assert ([each.node for each in found.agreed], found.failed) == ([A, C], {B: gone})
    with pytest.raises(DisagreedError, match=r"2 nodes must.*, 1 agree, and 1 gave none") as caught:
        await Nodes(b=[gone]).copies([A, B], 2)
    assert caught.value.failed == {B: gone}
    with pytest.raises(DisagreedError, match="none agree, and 2 gave none"):
        await Nodes(a=[gone], b=[gone]).copies([A, B], 1)


@pytest.mark.parametrize(
    ("nodes", "wanted", "seed"),
    [([A, A], 2, 1), ([A, B], 3, 1), ([A, B], 0, 1), ([A, B], -1, 1), ([A, B], 2, None)],
)
async def test_what_cannot_agree_is_not_asked(nodes: list[str], wanted: int, seed: int | None) -> None:
    all_nodes = Nodes()
    with pytest.raises(ClientError, match=r"cannot agree|only deterministic jobs"):
        await all_nodes.copies(nodes, wanted, msgspec.structs.replace(TASK, seed=seed))
    assert all_nodes.asked == []


async def test_seed_zero_is_a_seed_and_one_node_may_be_enough() -> None:
    found = await Nodes().copies([A], 1, msgspec.structs.replace(TASK, seed=0))
    assert found.result.node == A
