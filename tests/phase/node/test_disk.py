"""A node whose disk fills up, and has room again."""

import os
from pathlib import Path
from typing import Any

import pytest

from phase import files
from phase.client import JobLostError, Task
from phase.jobs.status import Exited
from phase.node import journal as journals
from phase.node.errors import StateError
from phase.node.journal import Ended, Journal, Taken, parse
from phase.node.kept import Kept
from phase.node.kept import _name as kept_name
from phase.peer.messages import State
from tests.phase.node.conftest import CAT, CLIENT, Start, wasm

KEY = "1" * 64


def _taken(job: str) -> Taken:
    return Taken(KEY, job, "a" * 64, 1.0)


class Disk:
    """Takes so many bytes more, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self._write = 1 << 40, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: bytes) -> int:
        if not self.free:
            raise OSError(28, os.strerror(28))
        count = self._write(file, data[: self.free])
        self.free -= count
        return count


async def test_a_line_after_a_torn_one_is_whole_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, disk = Journal(tmp_path / "journal"), Disk(monkeypatch)
    disk.free = 10
    for job in "ab":
        with pytest.raises(StateError, match="No space left"):
            journal.append(_taken(job))
    disk.free = 1 << 20
    journal.append(_taken("c"))
    journal.append(_taken("d"))
    journal.close()
    assert parse((tmp_path / "journal").read_bytes()) == ([_taken("c"), _taken("d")], 1)


def test_a_journal_is_opened_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    path.write_bytes(journals.line(_taken("a"))[:-1])
    disk = Disk(monkeypatch)
    disk.free = 0
    journal = Journal(path)
    assert journal.events == [_taken("a")]
    with pytest.raises(StateError, match=f"the journal {path} cannot be written: No space left"):
        journal.append(_taken("b"))
    journal.close()


async def test_a_journal_is_written_anew_only_after_it_has_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "COMPACT_BYTES", 4096)
    journal = Journal(tmp_path / "journal")
    live = [_taken(str(number)) for number in range(100)]
    anew = 0
    for number in range(1000):
        journal.append(live[number % 100])
        if journal.overlong:
            await journal.compact(live)
            anew += 1
    journal.close()
    assert 5 < anew < 12


def test_a_journal_does_not_become_longer_than_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_MAX_BYTES", 300)
    journal = Journal(tmp_path / "journal")
    journal.append(_taken("a"))
    with pytest.raises(StateError, match="File too large"):
        journal.append(_taken("b"))
    journal.close()
    Journal(tmp_path / "journal").close()


async def test_jobs_go_on_while_the_journal_cannot_be_written_anew(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "COMPACT_BYTES", 100)
    tries = []

    def full(path: Path, *_: Any, **__: Any) -> None:
        tries.append(path)
        raise OSError(28, os.strerror(28))

    async with start(slots=1) as scene:
        write = files.put_beside
        monkeypatch.setattr(files, "put_beside", full)
        for _ in range(5):
            assert (await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"
        monkeypatch.setattr(files, "put_beside", write)
        assert not scene.daemon.tasks.found()
        assert scene.daemon.scheduler.ended == {State.DONE.value: 5}
    assert len(tries) == 1


async def test_a_job_whose_receipt_is_kept_is_done_though_the_journal_does_not_say_so(
    start: Start, tmp_path: Path
) -> None:
    """As after a power cut between the two; unless the receipt is damaged."""
    task = Task(module=wasm(CAT), stdin=b"x")
    async with start() as scene:
        for job in ("whole", "damaged", "gone"):
            await scene.client.submit(scene.address, task, job=job, detached=True)
            await scene.client.fetch(scene.address, job)
    path = tmp_path / "node/journal"
    path.write_bytes(b"\n".join(each for each in path.read_bytes().split(b"\n") if b'"taken"' in each))
    kept = scene.daemon.scheduler.kept
    damaged = kept._directory / kept_name(CLIENT.public_key, "damaged")
    (damaged / "receipt").write_bytes(b"{}")
    kept.drop(CLIENT.public_key, "gone")
    async with start() as scene:
        said = {each.job: each for each in await scene.client.jobs(scene.address)}
        assert {job: (each.state, each.kept) for job, each in said.items()} == {
            "whole": (State.DONE, True),
            "damaged": (State.LOST, False),
            "gone": (State.LOST, False),
        }
        assert said["whole"].status == Exited(0)
        assert (await scene.client.fetch(scene.address, "whole")).stdout == b"x"


async def test_a_job_that_ran_and_whose_end_cannot_be_recorded_is_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its client, for who asks later, and after a restart; a kept result is as good as a record."""
    append = Journal.append

    def full(journal: Journal, event: journals.Event) -> None:
        if isinstance(event, Ended):
            raise StateError("the journal cannot be written: No space left on device")
        append(journal, event)

    task = Task(module=wasm(CAT), stdin=b"x")
    async with start() as scene:
        monkeypatch.setattr(Journal, "append", full)
        with pytest.raises(JobLostError, match="it ran, and its end cannot be recorded"):
            await scene.client.run(scene.address, task, job="attached")
        await scene.client.submit(scene.address, task, job="detached", detached=True)
        assert (await scene.client.fetch(scene.address, "detached")).stdout == b"x"
        monkeypatch.setattr(Kept, "finish", _fails)
        await scene.client.submit(scene.address, task, job="unkept", detached=True)
        with pytest.raises(JobLostError, match="it ran, and its result cannot be kept: No space left"):
            await scene.client.fetch(scene.address, "unkept")
        before = {each.job: each.state for each in await scene.client.jobs(scene.address)}
        monkeypatch.undo()
    async with start() as scene:
        after = {each.job: each.state for each in await scene.client.jobs(scene.address)}
    assert before == after == {"attached": State.LOST, "detached": State.DONE, "unkept": State.LOST}


def _fails(*_: Any, **__: Any) -> None:
    raise OSError(28, os.strerror(28))
