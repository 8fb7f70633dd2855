"""What several providers share: each chunk counts once, and is written whole."""

import os
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from time import monotonic

import pytest

from phase import files
from phase.fetch.transfer import Transfer, verified
from tests.phase.fetch.hostile import CHUNK, Artifact, describe, evenly

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
        threads = [threading.Thread(target=lambda: told.append(shared.add(0, chunk(0)))) for _ in range(2)]
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
        transfer(out).add(1, chunk(1))
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
    assert shared.add(0, chunk(0))
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
    shared.providers = 1
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


def small(count: int) -> Artifact:
    """Chunks of a mebibyte each, all the same; of no file."""
    starts = evenly(count << 20, 1 << 20)
    return Artifact("small", count << 20, "0" * 64, starts, (sha256(b"x").hexdigest(),) * count)


@pytest.mark.parametrize(("providers", "first"), [(1, 100), (2, 16), (5, 10), (60, 1)])
def test_the_more_share_the_work_the_less_one_takes_at_once(out: int, providers: int, first: int) -> None:
    shared = Transfer(small(100), out, 0, monotonic() + 20, None, None)
    if providers > 1:  # one is what it begins with
        shared.providers = providers
    assert shared.take() == range(first)
    shared.begin_stream(range(0))
    left = 100 - first
    if left:
        assert shared.take().stop == 100


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("count", "left", "taken"),
    [(4096, 4096, 256), (1200, 1200, 200), (1200, 30, 16), (48, 30, 5), (48, 4, 4)],
)
def test_short_chunks_are_asked_for_together(
    out: int, streamed: bool, count: int, left: int, taken: int
) -> None:
    """Of 64 KiB each, by three: a sixth of what is left, but a mebibyte, or a twelfth of a small file."""
    chunk = 1 << 16
    artifact = small(count)._replace(length=count * chunk, starts=evenly(count * chunk, chunk))
    shared = Transfer(artifact, out, 0, monotonic() + 20, None, None)
    shared.take()
    shared.give_back(range(left))
    shared.providers = 3
    if streamed:
        shared.begin_stream(range(0))
    run = shared.take()
    assert len(run) == taken
    assert run == (range(left - taken, left) if streamed else range(taken))


def test_a_run_ends_where_another_has_brought_something(out: int) -> None:
    for streamed, runs in ((False, [range(3), range(4, 6)]), (True, [range(4, 6), range(3)])):
        shared = transfer(out, providers=1)
        if streamed:
            shared.begin_stream(range(0))
        assert shared.add(3, chunk(3))
        assert [shared.take(), shared.take()] == runs


def test_who_has_nothing_to_do_helps_where_fewest_are_with_what_is_last(out: int) -> None:
    shared = transfer(out, providers=1)
    assert shared.take() == range(6)
    assert [shared.take() for _ in range(7)] == [range(n, n + 1) for n in (5, 4, 3, 2, 1, 0, 5)]
    # One of three leaves chunk 5, one of two chunk 4: each is still held by another.
    shared.give_back(range(4, 6))
    assert shared.take() == range(4, 5)
    assert shared.add(4, chunk(4))
    assert not shared.add(4, chunk(4))
    assert [shared.take() for _ in range(5)] == [range(n, n + 1) for n in (5, 3, 2, 1, 0)]
    assert shared.missing == 5


def test_what_is_given_back_twice_is_handed_out_once(out: int) -> None:
    shared = transfer(out, providers=1)
    assert shared.take() == range(6)
    shared.give_back(range(1, 3))
    shared.give_back(range(1, 3))
    shared.give_back(range(4, 5))
    assert [shared.take(), shared.take()] == [range(1, 3), range(4, 5)]


def test_who_reads_from_the_start_leaves_what_it_held_to_others(out: int) -> None:
    shared = transfer(out, providers=1)
    shared.begin_stream(shared.take())
    assert shared.take() == range(6)


def test_what_has_come_is_counted_and_told(out: int, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    data = DATA + b"end"
    artifact = describe(data)
    os.pwrite(out, data[CHUNK : 2 * CHUNK], 7 + CHUNK)
    kept = os.open(tmp_path / "kept", os.O_RDWR | os.O_CREAT)
    shared = Transfer(artifact, out, 7, monotonic() + 20, lambda *so_far: told.append(so_far), kept)
    assert (shared.size(5), shared.size(6)) == (CHUNK, 3)
    assert shared.keep_present() == CHUNK
    assert (shared.missing, shared.has(0), shared.has(1)) == (6, False, True)
    shared.providers = 1
    assert [shared.take(), shared.take()] == [range(1), range(2, 7)]
    assert shared.add(6, memoryview(b"end"))
    assert shared.add(2, chunk(2))
    assert told == [(CHUNK + 3, len(data)), (2 * CHUNK + 3, len(data))]
    assert os.pread(out, 9, 7 + 6 * CHUNK) == b"end"
    assert os.pread(kept, 9, 6 * CHUNK) == b"end"
    os.close(kept)


def test_what_cannot_be_kept_is_tried_once(out: int, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    kept = os.open(tmp_path / "kept", os.O_RDONLY)
    shared = Transfer(ARTIFACT, out, 0, monotonic() + 20, None, kept)
    assert shared.add(0, chunk(0))
    assert shared.unkept == "Bad file descriptor"
    shared.unkept = "as before"
    assert shared.add(1, chunk(1))
    os.close(kept)
    assert shared.unkept == "as before"


def test_nobody_waits_for_what_is_over(out: int) -> None:
    here = [threading.current_thread()]
    ended = threading.Thread(target=int)
    ended.start()
    ended.join()
    began = monotonic()
    transfer(out).wait([ended])
    failed = transfer(out)
    first = OSError("first")
    failed.fail(first)
    failed.fail(OSError("second"))
    assert failed.failure is first
    failed.wait(here)
    complete = transfer(out)
    for index in range(6):
        complete.add(index, chunk(index))
    complete.wait(here)
    assert complete.take() == failed.take() == range(0)
    late = Transfer(ARTIFACT, out, 0, monotonic() - 1, None, None)
    late.wait(here)
    _all_taken_and_none_held(late)
    assert late.take() == range(0)
    assert monotonic() - began < 5
