"""What several providers share: each chunk counts once, and is written whole."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from phase import files
from phase.fetch.transfer import Transfer, verified
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


def _waiting(shared: Transfer) -> tuple[threading.Thread, list[range]]:
    """A provider that finds nothing to do, and waits for what the others drop."""
    got: list[range] = []
    thread = threading.Thread(target=lambda: got.append(shared.take()))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    return thread, got


def _all_taken_and_none_held(shared: Transfer) -> None:
    """As in the moment when a provider reads the whole from its start."""
    assert shared.take() == range(6)
    shared.begin_stream(range(0))
    for index in range(6):
        shared._release(index)


@pytest.mark.parametrize("what", ["given back", "complete", "failed"])
def test_who_waits_hears_at_once_that_something_has_changed(out: int, what: str) -> None:
    shared = transfer(out, providers=1)
    _all_taken_and_none_held(shared)
    if what == "complete":
        for index in range(1, 6):
            assert shared.add(index, chunk(index))
    thread, got = _waiting(shared)
    if what == "given back":
        shared.give_back(range(2, 4))
    elif what == "complete":
        assert shared.add(0, chunk(0))
    else:
        shared.fail(OSError("disk full"))
    thread.join(5)
    assert not thread.is_alive()
    assert len(got) == 1
    assert set(got[0]) <= ({2, 3} if what == "given back" else set())
    assert bool(got[0]) == (what == "given back")


def test_a_chunk_is_known_to_be_there_once_it_is(out: int) -> None:
    shared = transfer(out)
    assert not shared.has(2)
    assert shared.add(2, chunk(2))
    assert shared.has(2)
    assert not shared.has(3)
    assert not shared.add(2, chunk(2))


def test_where_one_reads_from_the_start_no_chunk_is_handed_out_twice(out: int) -> None:
    shared = transfer(out)
    shared.begin_stream(range(0))
    handed = [index for _ in range(6) for index in shared.take()]
    assert handed == [5, 4, 3, 2, 1, 0]


def test_a_file_s_verified_chunks_are_told_from_its_start_on(out: int) -> None:
    os.pwrite(out, bytes(CHUNK) + DATA[CHUNK:], 0)
    assert [index for index, _ in verified(ARTIFACT, out)] == [1, 2, 3, 4, 5]
