"""Several processes of one provider, which whoever asks takes for one."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phase.provider import together
from phase.provider.limits import Limits
from phase.provider.metrics import Metrics
from phase.provider.status import Advertisement
from phase.provider.store import Store
from phase.provider.together import Board, Together
from tests.phase.provider.conftest import Publish
from tests.phase.provider.service import get, serving


def test_who_is_asked_answers_for_all(publish: Publish) -> None:
    board, store = Board(3), Store(publish())
    counts = [Metrics() for _ in range(3)]
    told = [Advertisement() for _ in range(3)]
    processes = [
        Together(board.row(number), counted, advertised, store)
        for number, (counted, advertised) in enumerate(zip(counts, told, strict=True))
    ]
    told[0].instances.append("phase-stable")
    told[0].problem = ""
    told[0].seen.add("another")
    for number, counted in enumerate(counts, 1):
        counted.requests["/blobs/sha256/{hex}", 200] += number
        counted.bytes_sent["/blobs/sha256/{hex}"] += 1000 * number
        counted.refused[429] += number
        counted.active, counted.connections, counted.idle_closed = number, number, number
    for process in processes:
        process.tell()
    for process in processes:
        whole, advertised = process.all()
        assert whole.requests == {("/blobs/sha256/{hex}", 200): 6}
        assert whole.bytes_sent == {"/blobs/sha256/{hex}": 6000}
        assert whole.refused == {429: 6}
        assert (whole.active, whole.connections, whole.idle_closed) == (6, 6, 6)
        assert whole.started == counts[0].started
        assert advertised == told[0]


def test_what_is_half_written_is_not_believed(publish: Publish) -> None:
    board, store = Board(2), Store(publish())
    first, second = Metrics(), Metrics()
    writer = Together(board.row(0), first, Advertisement(), store)
    reader = Together(board.row(1), second, Advertisement(), store)
    assert reader.all()[0].idle_closed == 0
    first.idle_closed = 7
    writer.tell()
    assert reader.all()[0].idle_closed == 7
    first.idle_closed = 8
    writer.tell()
    board.row(0)._said[0][40] ^= 1
    # A counter that jumped back would look to Prometheus like a restart.
    assert reader.all()[0].idle_closed == 7
    writer.tell()
    assert reader.all()[0].idle_closed == 8


def test_the_limits_hold_for_all_together() -> None:
    board = Board(2)
    first, second = (Limits(3, 2, row=board.row(number)) for number in range(2))
    assert [first.enter("a"), second.enter("a"), first.enter("a"), second.enter("a")] == [0, 0, 429, 429]
    assert [second.enter("b"), first.enter("b"), second.enter("c")] == [0, 503, 503]
    second.leave("a")
    assert [first.enter("a"), second.enter("c")] == [0, 503]


def test_a_worker_that_is_away_or_silent_is_a_problem(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, store = Board(2), Store(publish())
    board.started(0)
    board.started(1)
    limits = Limits(3, 2, row=board.row(1))
    assert limits.enter("a") == 0
    first, second = (Together(board.row(n), Metrics(), Advertisement(), store) for n in (0, 1))
    assert not board.serving()
    first.tell()
    second.tell()
    assert board.serving()
    assert (first.problems(), first.workers()) == ([], (2, 0))
    board.ended(1, "by signal 9")
    assert [(problem.part, problem.text) for problem in first.problems()] == [
        ("workers", "worker 1 ended by signal 9; restarts so far: 0")
    ]
    assert first.workers() == (1, 1)
    assert board.row(0).open("a") == (0, 0), "its connections are closed"
    board.started(1)
    assert (first.problems(), first.workers()) == ([], (2, 1))
    monkeypatch.setattr(together, "SILENT_SECONDS", -1.0)
    assert "worker 1 has not answered for" in first.problems()[0].text


def test_a_worker_counts_on_from_where_the_one_before_it_ended(publish: Publish) -> None:
    board, store = Board(2), Store(publish())
    counted = Metrics()
    counted.requests["/health", 200] += 5
    Together(board.row(1), counted, Advertisement(), store).tell()
    anew = Metrics()
    Together(board.row(1), anew, Advertisement(), store)
    assert anew.requests == {("/health", 200): 5}
    assert anew.started == counted.started


@contextmanager
def alone(pid: int, others: list[int]) -> Iterator[None]:
    """Only this one can answer."""
    for other in others:
        if other != pid:
            os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


@pytest.fixture
def two(publish: Publish) -> Iterator[tuple[str, list[int]]]:
    with serving(publish(), "--processes", "2") as (url, process):
        yield url, _children(process)


def _children(process: "subprocess.Popen[str]") -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(child) for child in text.split()]


def agree(pids: list[int], ask: Callable[[], object], wanted: object) -> None:
    """Each of them says so, soon."""
    for pid in pids:
        until = time.monotonic() + 20
        with alone(pid, pids):
            while (found := ask()) != wanted:
                assert time.monotonic() < until, f"process {pid} says {found}"
                time.sleep(0.05)


def test_both_tell_the_same(two: tuple[str, list[int]]) -> None:
    url, pids = two
    for pid, times in zip(pids, (3, 5), strict=True):
        with alone(pid, pids):
            for _ in range(times):
                get(f"{url}/stable/x86_64/kernel")
    time.sleep(0.5)  # both have told before one is stopped

    def fetched() -> int:
        text = get(f"{url}/metrics").decode()
        return int(re.findall(r'artifact}",status="200"} (\d+)', text)[0])

    agree(pids, fetched, 8)

    def status() -> object:
        found = json.loads(get(f"{url}/status"))
        return found["mdns"], found["bytes_sent"] > 0, found["releases"][0]["release"]

    with alone(pids[0], pids):
        wanted = status()
    agree(pids, status, wanted)


def test_both_pick_up_a_new_release(two: tuple[str, list[int]], publish: Publish) -> None:
    url, pids = two
    publish("2.0.0", kernel=b"new", initramfs=b"new too")
    agree(pids, lambda: get(f"{url}/stable/x86_64/kernel"), b"new")
