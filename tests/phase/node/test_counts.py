"""What a node counts and frees, and what it says of a job that never ran."""

import asyncio
import logging
import select
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from phase.client import Task
from phase.identity import Identity
from phase.jobs.flow import Streams
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.receipt import Content
from phase.jobs.runner import Execution, Job
from phase.jobs.status import Exited
from phase.node.capacity import Capacity
from phase.node.errors import RefusedError
from phase.node.held import Held
from phase.node.journal import Ended, Journal
from phase.node.kept import Kept
from phase.node.scheduler import Scheduler
from phase.node.streams import Feed
from phase.node.work import Work
from phase.node.workers import Workers
from phase.peer import messages
from phase.peer.framing import Frames
from phase.peer.messages import Fetch, Offer, Result, State, frame
from tests.phase.node.conftest import CAT, CLIENT, LOOP, Scene, Start, until, wasm

ONE = "1" * 64
MODULE = Content("a" * 64, 1)
LONG = Limits(fuel=MAX_INTEGER, wall_seconds=300)


def test_bytes_that_are_given_back_may_be_taken_again() -> None:
    """Each in its kind: a module that is used twice is freed once, and not before."""
    count, module, other = Held(100, 100), Content("a" * 64, 60), Content("b" * 64, 60)
    first, later = bytes(bytearray(b"module")), bytes(bytearray(b"module"))
    count.take("one", module, 20)
    count.take("one", module, 20)
    assert count.shared(module, first) is first
    count.give_back("one", module, 20)
    assert count.shared(module, later) is first, "the second job still has it"
    with pytest.raises(RefusedError):
        count.take("one", other, 0)
    count.give_back("one", module, 20)
    assert count.shared(module, later) is later
    count.take("one", other, 40)
    with pytest.raises(RefusedError):
        count.take("two", Content("c" * 64, 1), 0)


class _Held:
    """A runner whose jobs run until they are let go."""

    def __init__(self) -> None:
        self.go = Event()

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        self.go.wait(20)
        raise OSError("it was let go")

    def close(self) -> None: ...


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal")
    yield made
    made.close()


def _scheduler(journal: Journal, tmp_path: Path, runner: _Held, slots: int = 2) -> Scheduler:
    return Scheduler(Identity.ephemeral(), Capacity(slots=slots), journal, Kept(tmp_path / "k"), runner)


def _admit(scheduler: Scheduler, job: str, module: Content = MODULE) -> Work:
    return scheduler.admit(ONE, Offer(job=job, module=module))


async def test_jobs_that_run_and_wait_are_counted(journal: Journal, tmp_path: Path) -> None:
    runner = _Held()
    made = _scheduler(journal, tmp_path, runner)
    works = [_admit(made, f"{number}") for number in range(4)]
    for work in works:
        await made.enqueue(work)
    assert (made.running, made.queued) == (0, 4)
    slots = [asyncio.create_task(made.work()) for _ in range(2)]
    await until(lambda: made.running == 2)
    assert made.queued == 2
    runner.go.set()
    await asyncio.gather(*(work.ended for work in works))
    await until(lambda: made.running == 0)
    assert (made.queued, made.ended) == (0, {"failed": 4})
    for slot in slots:
        slot.cancel()


async def test_memory_of_jobs_that_have_ended_is_free(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phase.node.held.CLIENT_BYTES", 100)
    made = _scheduler(journal, tmp_path, _Held())
    module = Content("a" * 64, 60)
    for number in range(3):
        work = _admit(made, f"withdrawn {number}", module)
        with pytest.raises(RefusedError):
            _admit(made, "other", Content("b" * 64, 60))
        await made.withdraw(work)
    for number in range(3):
        work = _admit(made, f"dropped {number}", module)
        await made.enqueue(work)
        await made.drop(work)
    assert (made.queued, made.ended) == (0, {"cancelled": 3})


@pytest.mark.parametrize(("why", "state"), [("cancelled", State.CANCELLED), ("stopping", State.RETURNED)])
async def test_a_job_that_ended_before_it_waited_has_an_end(
    journal: Journal, tmp_path: Path, why: str, state: State
) -> None:
    """Its client may have cancelled it while its module was on the way; or the node may stop by now."""
    made = _scheduler(journal, tmp_path, _Held())
    work = _admit(made, "a")
    # One that was returned may be given to another node; one that was cancelled is not wanted.
    if why == "cancelled":
        await made.cancel(ONE, "a")
    else:
        await made.stop(0.0)
    await made.enqueue(work)
    assert (await asyncio.wait_for(work.ended, 20)).state is state
    assert made.queued == 0
    assert made.ledger.find(ONE, "a").state is state


async def _said(scene: Scene, job: str) -> Result:
    """What the node answers when a result is fetched, as it says it."""
    member = scene.member(Identity.from_seed(CLIENT.seed()))
    frames = Frames(await (await member.connect(scene.address, 5.0)).open())
    await frames.send(frame(Fetch(job=job)))
    found = await frames.receive(seconds=20.0)
    assert found is not None
    return messages.read(found.data, Result)


async def test_how_a_job_ended_is_said_though_its_result_is_not_kept(start: Start) -> None:
    async with start() as scene:
        await scene.client.run(scene.address, Task(module=wasm(CAT)), job="mine")
        said = await _said(scene, "mine")
        assert (said.job, said.state, said.status) == ("mine", State.DONE, Exited(0))
        made = await scene.client.submit(scene.address, Task(module=wasm(LOOP), limits=LONG), job="never")
        await until(lambda: scene.daemon.scheduler.running == 1)
        filler = [
            await scene.client.submit(scene.address, Task(module=wasm(LOOP), limits=LONG), job=f"{number}")
            for number in range(2)
        ]
        await scene.client.cancel(scene.address, "1")
        said = await _said(scene, "1")
        assert (said.state, said.status) == (State.CANCELLED, None)
        for each in (made, *filler):
            await each.leave()


async def test_input_that_has_ended_can_be_seen_by_who_waits_for_it() -> None:
    """The thread of a job waits for the descriptor, not for the bytes."""
    feed = Feed()
    assert not _readable(feed)
    feed.end()
    assert _readable(feed)
    assert feed.read(9) == b""
    assert _readable(feed), "however often it looks"
    feed.close()
    full = Feed()
    await full.give(b"xy")
    full.end()
    await full.give(b"too late")
    assert (full.read(1), full.read(9), full.read(9)) == (b"x", b"y", b"")
    assert _readable(full)
    full.end()
    full.close()


async def test_input_that_was_read_is_not_there_any_more() -> None:
    feed = Feed()
    await feed.give(b"")
    assert not _readable(feed)
    await feed.give(b"x")
    assert _readable(feed)
    assert feed.read(1) == b"x"
    assert not _readable(feed)
    feed.close()


def _readable(feed: Feed) -> bool:
    poll = select.poll()
    poll.register(feed.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_compiled_modules_are_kept_on_the_disk_where_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Workers(1, tmp_path / "compiled"):
        assert (tmp_path / "compiled").is_dir()
    assert not caplog.records
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING), Workers(1, tmp_path / "file"):
        assert "compiled modules are held in memory alone" in caplog.text


async def test_the_next_process_knows_what_ended(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    made = _scheduler(journal, tmp_path, _Held())
    work = _admit(made, "a")
    await made.enqueue(work)
    await made.drop(work, "for a reason")
    journal.close()
    again = Journal(tmp_path / "journal")
    ends = [(each.job, each.state, each.detail) for each in again.events if isinstance(each, Ended)]
    assert ends == [("a", State.CANCELLED, "for a reason")]
    again.close()


async def test_a_client_whose_jobs_have_all_ended_may_have_as_many_again(start: Start) -> None:
    async with start(slots=1, client_jobs=2) as scene:
        for _ in range(3):
            two = [
                await scene.client.submit(scene.address, Task(module=wasm(LOOP), limits=LONG))
                for _ in range(2)
            ]
            for each in two:
                await scene.client.cancel(scene.address, each.job)
            await until(lambda: not scene.daemon.scheduler.queued + scene.daemon.scheduler.running)
