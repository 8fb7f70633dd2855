"""What nodes do that a client must bear: it ends in time, says what is so, and believes nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from phase.cli._submit import Options, _first, book
from phase.client import (
    Client,
    ClientError,
    JobLostError,
    NotKeptError,
    RejectedError,
    Task,
    UntrueError,
    kept,
    patience,
    submission,
)
from phase.client import client as clients
from phase.identity import Identity
from phase.jobs.limits import Limits
from phase.peer.errors import PeerError
from phase.peer.framing import Frames, Kind, ProtocolError, file_part, pack
from phase.peer.memory import Network
from phase.peer.messages import Accepted, JobStatus, Progress, Reason, Rejected, Result, State, frame
from phase.peer.transport import Address, Code, Connection

_NODE = Identity.from_seed(b"\7" * 32)
_TASK = Task(module=b"module", limits=Limits(wall_seconds=0.1))
Act = Callable[[Connection, Frames], Awaitable[None]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "NETWORK_SECONDS", 0.2)
    for module in (patience, clients, submission):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)


@asynccontextmanager
async def _node(act: Act, state: State | None = None) -> AsyncIterator[tuple[Client, Address]]:
    """A node that takes each job, then does something; how far a job is, it says if there is a state."""
    network = Network()
    transport = network.join(_NODE)
    tasks: list[asyncio.Task[None]] = []

    async def answer(connection: Connection, frames: Frames) -> None:
        first = await frames.receive()
        assert first is not None
        if b'"status"' in first.data:
            if state is not None:
                await frames.send(frame(_status("job", state)))
            return
        if b'"offer"' in first.data:
            await frames.receive()
        await act(connection, frames)

    async def serve() -> None:
        connection = await transport.accept()
        while True:
            tasks.append(asyncio.ensure_future(answer(connection, Frames(await connection.accept()))))

    tasks.append(asyncio.ensure_future(serve()))
    client = Client(network.join(Identity.from_seed(b"\2" * 32)))
    try:
        yield client, Address(_NODE.public_key)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()
        await transport.close()


def _status(job: str, state: State) -> JobStatus:
    return JobStatus(job=job, state=state, module="0" * 64, accepted=1.0)


def _then(*frames: bytes, again: bool = False) -> Act:
    """Accept the job, and send some frames; again and again, or once, and then nothing."""

    async def act(_: Connection, of: Frames) -> None:
        await of.send(frame(Accepted()))
        await of.send(*frames)
        while again:
            await of.send(*frames)
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    return act


@pytest.mark.parametrize("state", [None, State.RUNNING, State.DONE])
@pytest.mark.parametrize("detached", [False, True])
async def test_a_silent_node_is_given_up(state: State | None, detached: bool) -> None:
    async with _node(_then(), state) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match="job job is lost: the node said nothing of its end within"):
            await (await client.submit(node, _TASK, job="job", detached=detached)).result()


async def test_a_job_that_waits_for_others_is_waited_for() -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(Accepted()))
        await asyncio.sleep(1.0)
        await frames.send(frame(Result(job="job", state=State.LOST, detail="at last")))

    async with _node(act, State.QUEUED) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match="at last"):
            await client.run(node, _TASK, job="job")


@pytest.mark.parametrize(
    "sent",
    [
        frame(Progress(state=State.QUEUED)),
        pack(Kind.STDOUT, b""),
        pack(Kind.STDERR, b""),
        pack(Kind.RECEIPT, b"{}"),
    ],
)
async def test_a_node_that_babbles_is_given_up(sent: bytes) -> None:
    async with _node(_then(sent, again=True), State.QUEUED) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match="the node sends"):
            await client.run(node, _TASK, job="job")


async def test_a_node_that_trickles_is_given_up() -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(Accepted()))
        while True:
            await frames.send(pack(Kind.STDOUT, b"x"))
            await asyncio.sleep(0.05)

    async with _node(act, State.QUEUED) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match="said nothing of its end"):
            await client.run(node, _TASK, job="job")


@pytest.mark.parametrize("sent", [(), (pack(Kind.STDOUT, b""),)])
async def test_a_fetch_ends_too(sent: tuple[bytes, ...]) -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(*sent)
        await asyncio.Event().wait()

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises((JobLostError, ProtocolError)):
            await client.fetch(node, "job")


async def test_a_result_of_an_unknown_job_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_OUTPUT", 1 << 20)
    sent = 0

    async def act(_: Connection, frames: Frames) -> None:
        nonlocal sent
        while True:
            await frames.send(pack(Kind.STDOUT, bytes(1 << 15)), pack(Kind.STDERR, bytes(1 << 15)))
            sent += 1 << 16

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(UntrueError, match="more output"):
            await client.fetch(node, "job")
        assert sent < 8 << 20


async def _closes(connection: Connection, _: Frames) -> None:
    await connection.close(Code.DONE, "bye")


async def _resets(_: Connection, frames: Frames) -> None:
    await frames.stream.reset(Code.DONE)


async def _finishes(_: Connection, frames: Frames) -> None:
    await frames.stream.finish()


async def _says_nothing(_: Connection, __: Frames) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("act", [_closes, _resets, _finishes, _says_nothing])
async def test_a_job_that_the_node_may_have_is_lost_and_not_refused(act: Act) -> None:
    """Whoever hears that no node was reached, or that it refused, gives the job to another one."""
    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match=r"phase job status --node KEY@HOST:PORT job`"):
            await client.run(node, _TASK, job="job")


@pytest.mark.parametrize("code", [Code.BUSY, Code.REFUSED])
async def test_a_connection_that_is_refused_in_the_middle_of_a_job_loses_it(code: Code) -> None:
    async def act(connection: Connection, frames: Frames) -> None:
        await frames.send(frame(Accepted()))
        await asyncio.sleep(0.05)
        await connection.close(code, "busy")

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError):
            await client.run(node, _TASK, job="job")


async def test_a_stream_too_many_is_a_refusal() -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.stream.reset(Code.BUSY)

    async with _node(act) as (client, node), asyncio.timeout(20):
        for call in (client.run(node, _TASK), client.fetch(node, "job"), client.jobs(node)):
            with pytest.raises(RejectedError) as caught:
                await call
            assert caught.value.reason is Reason.QUOTA


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Result(job="other", state=State.CANCELLED), "answers for another job: 'other'"),
        (Result(job="job", state=State.QUEUED), "the job has ended and is queued"),
        (Result(job="job", state=State.RUNNING), "the job has ended and is running"),
    ],
)
async def test_an_end_is_of_the_job_and_an_end(said: Result, words: str) -> None:
    async with _node(_then(frame(said))) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match=words):
            await client.run(node, _TASK, job="job")

    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(said))

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(PeerError, match=words):
            await client.fetch(node, "job")


async def test_a_status_is_of_the_job_that_was_asked() -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(_status("other", State.CANCELLED)))

    async with _node(act, State.DONE) as (client, node), asyncio.timeout(20):
        for call in (client.cancel(node, "job"), client.status(node, "mine")):
            with pytest.raises(PeerError, match="answers for another job"):
                await call
        assert (await client.status(node, "job")).state is State.DONE


async def test_a_result_that_is_not_kept_is_no_lie() -> None:
    """A job that was not detached has none to fetch; on its own stream it must have one."""
    said = Result(job="job", state=State.DONE, detail="its result is not kept")

    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(said))

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(NotKeptError, match="does not keep its result: its result is not kept"):
            await client.fetch(node, "job")
    async with _node(_then(frame(said))) as (client, node), asyncio.timeout(20):
        with pytest.raises(UntrueError):
            await client.run(node, _TASK, job="job")


async def test_a_refusal_after_the_acceptance_is_told() -> None:
    refused = frame(Rejected(reason=Reason.INVALID_REQUEST, detail="the module is not that"))
    async with _node(_then(refused)) as (client, node), asyncio.timeout(20):
        with pytest.raises(ClientError, match="the module is not that"):
            await client.run(node, _TASK, job="job")


async def test_a_file_that_nobody_offered_is_no_reason_to_fail() -> None:
    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(Accepted(send_files=("nobody's",))))
        found = await frames.receive()
        assert found is not None
        assert (found.kind, file_part(found.data)) == (Kind.FILE, ("nobody's", b""))
        await frames.send(frame(Result(job="job", state=State.LOST, detail="it is asked for nothing")))

    async with _node(act) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError, match="it is asked for nothing"):
            await client.run(node, _TASK, job="job")


class _Endless:
    """Input that has one part, and of which more may come at any time."""

    def __init__(self) -> None:
        self.waiting, self.cancelled = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"part"
        try:
            self.waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.mark.parametrize("how", ["left", "ended", "detached"])
async def test_input_is_asked_for_no_longer_than_anyone_wants_it(how: str) -> None:
    """Else a program's pipe would be read for ever for a job that is over."""
    source = _Endless()

    async def act(_: Connection, frames: Frames) -> None:
        await frames.send(frame(Accepted()), frame(Progress(state=State.QUEUED)))
        await source.waiting.wait()
        if how == "ended":
            await frames.send(frame(Result(job="job", state=State.LOST, detail="early")))
        elif how == "detached":
            await frames.stream.finish()
        await asyncio.Event().wait()

    async with _node(act, State.QUEUED) as (client, node), asyncio.timeout(20):
        made = await client.submit(node, _TASK, job="job", source=aiter(source), detached=how == "detached")
        if how == "left":
            await source.waiting.wait()
            await made.leave()
        elif how == "ended":
            with pytest.raises(JobLostError, match="early"):
                await made.result()
        await source.cancelled.wait()


async def test_a_detached_job_that_may_run_is_remembered(tmp_path: Path) -> None:
    """Else `phase job status` could not ask for it."""
    given: dict[str, Any] = dict.fromkeys(Options.__dataclass_fields__)
    options = Options(**(given | {"detach": True, "state": tmp_path}))
    async with _node(_finishes) as (client, node), asyncio.timeout(20):
        with pytest.raises(JobLostError) as caught:
            await _first(client, [node], _TASK, options, None)
        found = book(tmp_path).find(caught.value.job)
        assert found is not None
        assert (found.node, found.asked.requester) == (str(node), client.key)
