"""A node whose disk fills up, and has room again."""

import os
from pathlib import Path
from typing import Any

import pytest

from phase import files
from phase.client import Task
from phase.node import journal as journals
from phase.node.errors import StateError
from phase.node.journal import Journal, Taken, parse
from phase.peer.messages import State
from tests.phase.node.conftest import CAT, Start, wasm

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
        write = files.write
        monkeypatch.setattr(files, "write", full)
        for _ in range(5):
            assert (await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"
        monkeypatch.setattr(files, "write", write)
        assert not scene.daemon.tasks.found()
        assert scene.daemon.scheduler.ended == {State.DONE.value: 5}
    assert len(tries) == 1
