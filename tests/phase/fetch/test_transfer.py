"""What several providers share: each chunk counts once, and is written whole."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from phase import files
from phase.fetch.transfer import Transfer
from tests.phase.fetch.hostile import CHUNK, describe

DATA = bytes(range(256)) * (CHUNK // 256 * 6)
ARTIFACT = describe(DATA)
WRITE = os.pwrite


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def transfer(out: int, providers: int = 2) -> Transfer:
    made = Transfer(ARTIFACT, out, 0, monotonic() + 20, None, None)
    made.providers = providers
    return made


def chunk(index: int) -> memoryview:
    return memoryview(DATA)[index * CHUNK : (index + 1) * CHUNK]


def test_a_chunk_that_two_write_at_once_counts_once(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(descriptor: int, data: memoryview, offset: int) -> int:
        both.wait()
        return WRITE(descriptor, data, offset)

    shared = transfer(out)
    told: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", together)
        threads = [threading.Thread(target=lambda: told.append(shared.put(0, chunk(0)))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(told) == [False, True]
    assert shared.missing == len(ARTIFACT.chunks) - 1


def test_a_chunk_is_written_whole_however_little_is_written_at_once(
    out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda descriptor, data, offset: WRITE(descriptor, data[:4099], offset))
        transfer(out).put(1, chunk(1))
    assert os.pread(out, CHUNK, CHUNK) == chunk(1)


def test_a_write_that_writes_nothing_is_an_error(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
        with pytest.raises(OSError, match="No space left"):
            files.pwrite(out, b"x", 0)


def test_what_is_given_back_is_taken_in_order(out: int) -> None:
    shared = transfer(out, providers=1)
    run = shared.take()
    assert run == range(6)
    assert shared.put(0, chunk(0))
    shared.give_back(range(1, 6))
    assert shared.take() == range(1, 6)


def test_beside_one_that_reads_from_the_start_others_begin_at_the_end(out: int) -> None:
    shared = transfer(out, providers=2)
    shared.begin_stream(shared.take())
    assert shared.take() == range(5, 6)
    assert shared.add(0, chunk(0))
    assert shared.take() == range(4, 5)
    # What the other has brought already is not taken again.
    assert shared.add(3, chunk(3))
    assert [shared.take(), shared.take()] == [range(2, 3), range(1, 2)]
    shared.give_back(range(2, 3))
    shared.end_stream()
    assert shared.take() == range(2, 3)


def test_time_is_up_for_who_waits_for_others(out: int) -> None:
    shared = Transfer(ARTIFACT, out, 0, monotonic() + 0.2, None, None)
    shared.providers = 1
    assert shared.take() == range(6)
    # Whoever else comes helps with the last chunk first.
    assert shared.take() == range(5, 6)
    began = monotonic()
    shared.wait([threading.current_thread()])
    assert 0.1 < monotonic() - began < 5
