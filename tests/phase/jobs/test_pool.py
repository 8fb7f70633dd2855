"""Warm workers: the same results as from a worker of its own, and no death that goes unseen."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phase.jobs import location, pool
from phase.jobs.errors import CageError, EngineError
from phase.jobs.limits import Limits
from phase.jobs.pool import Pool
from phase.jobs.protect import OWN
from phase.jobs.runner import Job, execute
from phase.jobs.status import Exited, Killed, LimitHit, Trapped
from phase.jobs.zygote import DESCRIPTORS
from tests.phase.jobs.conftest import ENDINGS

Wasm = Callable[[str], bytes]
Wat = Callable[[str], bytes]
_HELLO = Exited(0), b"olleH"


@pytest.fixture
def two() -> Iterator[Pool]:
    with Pool(2) as made:
        yield made


def _hello(made: Pool, wasm: Wasm) -> tuple[object, bytes]:
    done = made.run(Job(wasm("hello"), stdin=b"Hello"))
    return done.status, done.stdout


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(*pids: int) -> bool:
    """Whether these have ended within a while; dead ones that nobody has reaped count as gone."""
    until = time.monotonic() + 20
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def _settled(zygote: int) -> set[int]:
    """The descriptors of a zygote, once it has cleared away its dead."""
    before: set[int] = set()
    while before != (now := set(map(int, os.listdir(f"/proc/{zygote}/fd")))) or _children(zygote):
        before = now
        time.sleep(0.2)
    return now


def _idle(made: Pool) -> int:
    """A worker that waits for a job."""
    made.wait_ready()
    return made._ready[0].pid


@pytest.mark.parametrize(("name", "limits"), ENDINGS)
def test_a_job_ends_as_in_a_worker_of_its_own(two: Pool, wasm: Wasm, name: str, limits: Limits) -> None:
    job = Job(wasm(name), args=["a"], stdin=b"Hello", env={"A": "1"}, limits=limits)
    alone, pooled = execute(job), two.run(job)
    for what in ("status", "stdout", "stderr", "fuel_used", "memory_bytes", "cage", "missing", "input"):
        assert getattr(pooled, what) == getattr(alone, what), what


def test_jobs_of_many_threads_each_get_a_process_and_an_answer_of_their_own(two: Pool, wasm: Wasm) -> None:
    answers: dict[int, bytes] = {}

    def bring(first: int) -> None:
        for number in range(first, 40, 4):
            answers[number] = two.run(Job(wasm("hello"), stdin=b"%d" % (1000 + number))).stdout

    threads = [threading.Thread(target=bring, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: b"%d" % (1000 + number) for number in range(40)} | {
        number: str(1000 + number)[::-1].encode() for number in range(40)
    }
    assert two.counts == {"worker replaced": 0, "zygote restarted": 0}


def test_two_workers_do_not_share_their_random_bytes(two: Pool, wat: Wat) -> None:
    """A generator that the zygote had seeded would give every job the same."""
    module = wat(
        """(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start") (drop (call $random (i32.const 64) (i32.const 32)))
          (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 32))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32))))"""
    )
    assert len({two.run(Job(module)).stdout for _ in range(6)}) == 6


def test_an_idle_worker_that_is_killed_is_named_and_replaced(wasm: Wasm) -> None:
    seen: list[tuple[str, str]] = []
    with Pool(1, told=lambda event, reason: seen.append((event, reason))) as made:
        victim = _idle(made)
        os.kill(victim, signal.SIGKILL)
        assert _gone(victim)
        assert _hello(made, wasm) == _HELLO
        assert made.counts == {"worker replaced": 1, "zygote restarted": 0}
    assert seen == [
        ("worker replaced", f"worker process {victim} was ended by signal 9 before it had a job")
    ]


def test_a_worker_that_is_killed_at_its_job_is_reported_and_the_next_job_runs(wasm: Wasm) -> None:
    with Pool(1) as made:
        victim = _idle(made)
        killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
        killer.start()
        done = made.run(Job(wasm("sleep")))
        killer.join()
        assert isinstance(done.status, Killed)
        assert done.status.signal == signal.SIGKILL
        assert _hello(made, wasm) == _HELLO


def test_a_zygote_that_is_killed_is_restarted(wasm: Wasm) -> None:
    seen: list[str] = []
    with Pool(2, told=lambda event, _: seen.append(event)) as made:
        idle, first = _idle(made), made.zygote
        os.kill(first, signal.SIGKILL)
        assert _gone(first, idle)  # its workers end with it
        assert _hello(made, wasm) == _HELLO
        assert made.zygote != first
        assert made.counts["zygote restarted"] == 1
    assert "zygote restarted" in seen


def test_a_job_whose_zygote_is_killed_is_reported_lost(wasm: Wasm) -> None:
    with Pool(1) as made:
        made.wait_ready()
        killer = threading.Timer(0.3, os.kill, (made.zygote, signal.SIGKILL))
        killer.start()
        done = made.run(Job(wasm("sleep")))
        killer.join()
        assert isinstance(done.status, Killed)
        assert _hello(made, wasm) == _HELLO


def test_a_zygote_that_stands_still_is_replaced(wasm: Wasm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_FORK_SECONDS", 1.0)
    with Pool(1) as made:
        assert _hello(made, wasm) == _HELLO
        first = made.zygote
        made._ready.popleft().close()
        os.kill(first, signal.SIGSTOP)
        assert _hello(made, wasm) == _HELLO
        assert made.zygote != first
        assert _gone(first)


def test_nothing_is_left_when_the_caller_is_killed(wasm: Wasm) -> None:
    code = """
import sys, threading
from phase.jobs.pool import Pool
from phase.jobs.runner import Job
made = Pool(2)
made.wait_ready()
job = Job(sys.stdin.buffer.read())
threading.Thread(target=made.run, args=(job,)).start()
print(made.zygote, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(wasm("sleep"))
        process.stdin.close()
        zygote = int(process.stdout.readline())
        until = time.monotonic() + 20
        while len(_children(zygote)) < 2:  # one that is ready, and the one with the job
            assert time.monotonic() < until
            time.sleep(0.02)
        workers = _children(zygote)
        process.kill()
    assert _gone(zygote, *workers)


def test_the_zygote_has_one_thread_and_no_descriptor_of_the_caller(two: Pool) -> None:
    two.wait_ready()
    assert len(os.listdir(f"/proc/{two.zygote}/task")) == 1
    for each in os.listdir(f"/proc/{two.zygote}/fd"):
        target = os.readlink(f"/proc/{two.zygote}/fd/{each}")
        kinds = ("pipe:", "socket:", "anon_inode:[pidfd]", "net:[")
        assert target == "/dev/null" or target.startswith(kinds), target


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at a worker")
def test_workers_at_the_same_time_are_in_different_networks_and_later_ones_in_the_same(
    two: Pool, wasm: Wasm
) -> None:
    seen = set()
    for _ in range(6):
        two.wait_ready()
        now = [os.readlink(f"/proc/{each.pid}/ns/net") for each in two._ready]
        assert len(set(now)) == len(now)
        assert os.readlink("/proc/self/ns/net") not in now
        seen |= set(now)
        assert _hello(two, wasm) == _HELLO
    # Two wait, up to two run, and some of them have not been cleared away.
    assert len(seen) < 6


def test_a_worker_that_is_never_ready_ends_no_job_of_others(
    wasm: Wasm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_FORK_SECONDS", 1.0)
    seen: list[tuple[str, str]] = []
    with Pool(2, told=lambda event, reason: seen.append((event, reason))) as made:
        made.wait_ready()
        found: list[object] = []
        long = Job(wasm("sleep"), limits=Limits(wall_seconds=5.0))
        other = threading.Thread(target=lambda: found.append(made.run(long).status))
        other.start()
        while not made._running:
            time.sleep(0.01)
        mute, first = made._ready[0], made.zygote
        reader, writer = os.pipe()
        os.close(mute._ends[3])
        mute._ends[3], mute._cage, mute._patience = reader, None, 0.2
        assert _hello(made, wasm) == _HELLO
        assert made.zygote == first
        assert [event for event, _ in seen] == ["worker replaced"]
        other.join()
        os.close(writer)
    assert found == [LimitHit("wall")]


def test_a_zygote_without_descriptors_says_so_and_goes_on(wasm: Wasm) -> None:
    with Pool(1) as made:
        assert _hello(made, wasm) == _HELLO
        first = made.zygote
        soft, hard = resource.prlimit(first, resource.RLIMIT_NOFILE)
        # Too few to take a request, and too few to watch the worker that is forked for it.
        for few in (DESCRIPTORS - 1, DESCRIPTORS):
            while made._ready:
                made._ready.popleft().close()
            used = _settled(first)
            free = [number for number in range(max(used) + 20) if number not in used]
            resource.prlimit(first, resource.RLIMIT_NOFILE, (free[few], hard))
            with pytest.raises(EngineError, match=r"descriptors|Too many open files"):
                made.run(Job(wasm("hello")))
            resource.prlimit(first, resource.RLIMIT_NOFILE, (soft, hard))
            assert _hello(made, wasm) == _HELLO
        assert (made.zygote, made.counts["zygote restarted"]) == (first, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look at a worker")
def test_a_worker_has_its_six_pipes_and_a_user_of_its_own(two: Pool) -> None:
    pid = _idle(two)
    # Six pipes, and its own /proc/self/statm.
    assert sorted(map(int, os.listdir(f"/proc/{pid}/fd"))) == [0, 1, 2, 3, 4, 5, 6]
    assert os.readlink(f"/proc/{pid}/fd/6") == f"/proc/{pid}/statm"
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{OWN + pid}\t{OWN + pid}" in status
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status


def test_no_process_and_no_descriptor_is_left_behind(wasm: Wasm) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with Pool(2) as made:
        for name in ("hello", "overflow"):
            made.run(Job(wasm(name)))
        zygote = made.zygote
    made.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert _gone(zygote)
    with pytest.raises(EngineError, match="is closed"):
        made.run(Job(b""))


def test_a_pool_without_an_engine_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(location, "engine_library", lambda: str(broken))
    with Pool(1) as made:
        for _ in range(2):
            with pytest.raises(EngineError, match=r"did not load its engine: .*broken\.so"):
                made.run(Job(b""))
    with Pool(1) as made:
        assert _gone(made._zygote.pid)
        with pytest.raises(EngineError, match=r"did not load its engine: .*broken\.so"):
            made.run(Job(b""))


def test_a_cage_that_is_not_whole_is_refused_where_it_must_be(
    wasm: Wasm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pool,
        "_BOOTSTRAP",
        "from phase.jobs import protect; protect._die_first = lambda: open('/none')".join(
            ("import sys; sys.path.append(sys.argv.pop()); ", "; from phase.jobs.zygote import main; main()")
        ),
    )
    with Pool(1, "whole") as made, pytest.raises(CageError, match="another process may be ended"):
        made.run(Job(wasm("hello")))
    with Pool(1, "best") as made:
        assert _hello(made, wasm) == _HELLO


def test_traps_and_limits_leave_the_pool_as_it_was(two: Pool, wasm: Wasm) -> None:
    for _ in range(3):
        assert two.run(Job(wasm("overflow"))).status == Trapped("stack overflow")
        assert two.run(Job(wasm("sleep"), limits=Limits(wall_seconds=0.1))).status == LimitHit("wall")
        assert _hello(two, wasm) == _HELLO
    assert two.counts == {"worker replaced": 0, "zygote restarted": 0}
