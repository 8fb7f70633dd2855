"""The node's parts on their own: journal, ledger, queue, blobs, kept results."""

import asyncio
import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from phase import files
from phase.identity import Identity
from phase.jobs.errors import JobRefusedError
from phase.jobs.flow import Streams
from phase.jobs.receipt import Content
from phase.jobs.runner import Execution, Job
from phase.jobs.status import Exited, Trapped
from phase.node import blobs as blobbing
from phase.node import journal as journals
from phase.node import ledger as ledgers
from phase.node.blobs import Blobs
from phase.node.capacity import Capacity
from phase.node.errors import RefusedError, StateError
from phase.node.fair import FairQueue
from phase.node.journal import Ended, Journal, Taken, line, parse
from phase.node.kept import Kept
from phase.node.ledger import Ledger
from phase.node.scheduler import Scheduler
from phase.node.streams import HELD_BYTES, Feed, Taps
from phase.node.work import Ending, Work
from phase.peer.messages import Offer, Reason, State

ONE, TWO = "1" * 64, "2" * 64


def _taken(job: str, client: str = ONE) -> Taken:
    return Taken(client, job, "a" * 64, 1.0)


def _ended(job: str, client: str = ONE, state: State = State.DONE) -> Ended:
    return Ended(client=client, job=job, state=state, at=2.0, status=Exited(0))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_a_journal_is_read_again_without_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.append(_taken("a"))
    journal.append(_ended("a"))
    await asyncio.gather(journal.sync(), journal.sync())
    journal.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert again.events == [_taken("a"), _ended("a")][: len(again.events)]
        again.append(_taken("b"))
        again.close()
        assert parse(path.read_bytes())[0][-1] == _taken("b")
    path.write_bytes(whole.replace(b'"job":"a"', b'"job":"b"', 1))
    assert parse(path.read_bytes()) == ([_ended("a")], 1)


def test_two_nodes_cannot_share_a_directory(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal")
    with pytest.raises(StateError, match="another node runs"):
        Journal(tmp_path / "journal")
    first.close()
    Journal(tmp_path / "journal").close()


async def test_a_journal_is_written_anew_while_events_come(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(100):
        journal.append(_taken(str(number)))
    waiting = asyncio.create_task(journal.sync())
    await asyncio.sleep(0)
    await journal.compact([_taken("0")])
    journal.append(_ended("0"))
    await journal.sync()
    await waiting
    journal.close()
    assert parse((tmp_path / "journal").read_bytes()) == ([_taken("0"), _ended("0")], 0)


async def test_what_comes_after_a_rewrite_that_failed_at_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk does not say that it has the new name; the old file has none any more."""

    def broken(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal(tmp_path / "journal")
    journal.append(_taken("0"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync_directory", broken)
        with pytest.raises(StateError, match="cannot be written anew"):
            await journal.compact([_taken("0")])
    journal.append(_ended("0"))
    journal.close()
    assert parse((tmp_path / "journal").read_bytes()) == ([_taken("0"), _ended("0")], 0)


async def test_two_jobs_that_end_together_are_both_in_the_new_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one writes the journal anew while the end of the second is there, and not yet booked."""
    monkeypatch.setattr(journals, "COMPACT_BYTES", 100)
    journal = Journal(tmp_path / "journal")
    made = Scheduler(Identity.ephemeral(), Capacity(slots=2), journal, Kept(tmp_path / "k"), _Broken())
    works = [made.admit(ONE, Offer(job=job, module=Content("a" * 64, 1))) for job in "ab"]
    for each in works:
        await made.enqueue(each)
    half = made.admit(ONE, Offer(job="half", module=Content("a" * 64, 1)))
    await asyncio.gather(*(made._finish(each, Ending(state=State.RETURNED)) for each in works))
    journal.close()
    events, damaged = parse((tmp_path / "journal").read_bytes())
    assert damaged == 0
    assert {each.job for each in events if isinstance(each, Ended)} == {"a", "b"}
    assert half.offer.job not in {each.job for each in events}, "its client may offer it again"


class _Broken:
    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        raise ValueError("of the node's own")


async def test_a_fault_of_the_node_ends_the_job_and_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    made = Scheduler(Identity.ephemeral(), Capacity(slots=1), journal, Kept(tmp_path / "k"), _Broken())
    work = made.admit(ONE, Offer(job="a", module=Content("a" * 64, 1)))
    await made.enqueue(work)
    slot = asyncio.create_task(made.work())
    ending = await asyncio.wait_for(work.ended, 20)
    assert (ending.state, made.queued, made.running) == (State.LOST, 0, 0)
    assert "of the node's own" in ending.detail
    slot.cancel()
    journal.close()


class _Counting:
    """Refuses each job, and counts them."""

    def __init__(self) -> None:
        self.ran = 0

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        self.ran += 1
        raise JobRefusedError("as every job")


async def test_a_slot_does_not_wait_for_the_disk_while_jobs_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many ends as there are slots may wait, and nobody hears of one that the disk does not have."""
    journal, runner = Journal(tmp_path / "journal"), _Counting()
    disk, sync = threading.Event(), journal._sync

    def slow() -> None:
        assert disk.wait(60)
        sync()

    monkeypatch.setattr(journal, "_sync", slow)
    made = Scheduler(Identity.ephemeral(), Capacity(slots=1), journal, Kept(tmp_path / "k"), runner)
    works = [made.admit(ONE, Offer(job=job, module=Content("a" * 64, 1))) for job in "abc"]
    for work in works:
        await made.enqueue(work)
    slot = asyncio.create_task(made.work())
    async with asyncio.timeout(30):
        while runner.ran < 2 or made.settling < 1:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert (runner.ran, made.running, made.settling, made.queued) == (2, 1, 1, 1)
    assert not any(work.ended.done() for work in works)
    disk.set()
    endings = [await asyncio.wait_for(work.ended, 30) for work in works]
    assert [ending.state for ending in endings] == [State.FAILED] * 3
    assert (runner.ran, made.running, made.settling, made.queued) == (3, 0, 0, 0)
    slot.cancel()
    journal.close()


async def test_an_end_that_fails_when_its_slot_is_free_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal")
    made = Scheduler(Identity.ephemeral(), Capacity(slots=1), journal, Kept(tmp_path / "k"), _Counting())
    works = [made.admit(ONE, Offer(job=job, module=Content("a" * 64, 1))) for job in "ab"]
    for work in works:
        await made.enqueue(work)
    settle = made._settled
    failed: list[Work] = []

    def settled(work: Work, ending: Ending) -> tuple[Ending, Ended]:
        if not failed:
            failed.append(work)
            raise ValueError("of the node's own")
        return settle(work, ending)

    monkeypatch.setattr(made, "_settled", settled)
    slot = asyncio.create_task(made.work())
    assert (await asyncio.wait_for(works[1].ended, 30)).state is State.FAILED
    assert 'the end of a job failed: ValueError("of the node\'s own")' in caplog.text
    assert (made.running, made.settling) == (0, 0)
    slot.cancel()
    journal.close()


async def test_a_full_disk_is_told_and_the_next_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal")
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(StateError, match="No space left"):
        journal.append(_taken("a"))
    monkeypatch.setattr(os, "write", write)
    journal.append(_taken("b"))
    journal.close()
    assert parse((tmp_path / "journal").read_bytes()) == ([_taken("b")], 1)


def test_a_ledger_refuses_an_id_as_long_as_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "REMEMBERED", 3)
    found = Ledger.replayed([each for job in "abcd" for each in (_taken(job), _ended(job))])
    found.check_new(ONE, "a")
    found.check_new(TWO, "b")
    for job in "bcd":
        with pytest.raises(RefusedError) as caught:
            found.check_new(ONE, job)
        assert caught.value.reason is Reason.DUPLICATE
    assert [each.taken.job for each in found.jobs(ONE)] == ["d", "c", "b"]


def test_a_ledger_ends_each_job_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Ledger.replayed([_taken("a"), _ended("a"), _ended("a", state=State.LOST), _ended("x")])
    assert [each.state for each in found] == [State.DONE]
    assert [each.taken.job for each in Ledger.replayed([_taken("b")]).unfinished()] == ["b"]
    monkeypatch.setattr(ledgers, "REMEMBERED_OF_ALL", 2)
    for number in range(5):
        found.take(_taken(str(number), TWO))
        found.end(_ended(str(number), TWO))
    assert len(list(found)) == 2
    assert found.find(ONE, "a").state is State.DONE


async def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(3):
        queue.put(ONE, f"one {number}")
    queue.put(TWO, "two 0")
    assert queue.remove(ONE, "one 1")
    assert not queue.remove(ONE, "one 1")
    assert [await queue.get() for _ in range(3)] == ["one 0", "two 0", "one 2"]
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put(TWO, "two 1")
    assert await waiting == "two 1"


def test_blobs_make_room_and_damaged_ones_are_not_used(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "b", disk_bytes=8192, memory_bytes=1)
    data = [bytes([number]) * 40 for number in range(3)]
    for each in data:
        blobs.put(ONE, _sha256(each), each)
    assert [blobs.has(ONE, _sha256(each)) for each in data] == [False, True, True]
    again = Blobs(tmp_path / "b", disk_bytes=8192)
    assert again.get(ONE, _sha256(data[1])) == data[1]
    assert not again.has(TWO, _sha256(data[1]))
    assert again.get(TWO, _sha256(data[1])) is None, "the hash of another's input is no right to it"
    files = {path.read_bytes(): path for path in (tmp_path / "b").iterdir()}
    files[data[2]].write_bytes(b"x" * 40)
    (tmp_path / "b/.0.tmp").write_bytes(b"half")
    last = Blobs(tmp_path / "b")
    assert last.get(ONE, _sha256(data[2])) is None
    assert not last.has(ONE, _sha256(data[2]))
    assert list((tmp_path / "b").iterdir()) == [files[data[1]]]


def test_tiny_blobs_are_bounded_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobbing, "MAX_BLOBS", 3)
    blobs = Blobs(tmp_path)
    data = [bytes([number]) for number in range(5)]
    for each in data:
        blobs.put(ONE, _sha256(each), each)
    assert [blobs.has(ONE, _sha256(each)) for each in data] == [False, False, True, True, True]
    assert len(list(tmp_path.iterdir())) == 3


def test_kept_results_make_room_for_newer_ones_of_the_same_client(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "k", client_bytes=100)
    for job, client in (("a", ONE), ("b", TWO), ("c", ONE)):
        spool = kept.begin(client, job)
        os.write(spool.stdout, job.encode() * 60)
        spool.close()
        kept.finish(client, job, b"receipt")
    assert [kept.has(ONE, "a"), kept.has(TWO, "b"), kept.has(ONE, "c")] == [False, True, True]
    kept.begin(ONE, "half").close()
    again = Kept(tmp_path / "k")
    assert (again.receipt(ONE, "c"), again.has(ONE, "half")) == (b"receipt", False)
    assert again.output(ONE, "half", "stdout") is None
    assert len(list((tmp_path / "k").iterdir())) == 2


async def test_input_waits_for_the_module_and_output_for_the_client() -> None:
    feed, taps = Feed(), Taps()
    with pytest.raises(BlockingIOError):
        feed.read(1)
    await feed.give(b"x" * HELD_BYTES)
    waiting = asyncio.create_task(feed.give(b"y"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await asyncio.to_thread(feed.read, HELD_BYTES) == b"x" * HELD_BYTES
    await waiting
    feed.end()
    assert (feed.read(9), feed.read(9)) == (b"y", b"")
    assert taps.stdout.write(memoryview(b"z" * HELD_BYTES)) == HELD_BYTES
    with pytest.raises(BlockingIOError):
        taps.stderr.write(memoryview(b"e"))
    assert await taps.take() == ("stdout", b"z" * HELD_BYTES)
    taps.stderr.write(memoryview(b"e"))
    taps.end()
    assert (await taps.take(), await taps.take()) == (("stderr", b"e"), None)
    taps.leave()
    with pytest.raises(BrokenPipeError):
        taps.stdout.write(memoryview(b"late"))
    feed.close()
    taps.close()


@pytest.mark.parametrize("letter", ["x", "\N{GRINNING FACE}", "\1"])
def test_the_longest_line_of_the_journal_is_read_again(letter: str) -> None:
    taken = Taken(ONE, "j" * 128, "a" * 64, time.time(), True)
    end = Ended(
        client=ONE,
        job="j" * 128,
        state=State.DONE,
        at=time.time(),
        status=Trapped(letter * 500),
        detail=letter * 500,
    )
    assert parse(line(taken) + line(end)) == ([taken, end], 0)
