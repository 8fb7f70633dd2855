"""A deterministic job learns nothing but what it is given."""

import random
from collections.abc import Callable

import pytest

from phase.jobs.errors import JobRefusedError
from phase.jobs.flow import Descriptor, Streams
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.pool import Pool
from phase.jobs.runner import Job, Worker, execute
from phase.jobs.status import Exited, Trapped

Wasm = Callable[[str], bytes]
Wat = Callable[[str], bytes]
_IMPORTS = """(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
(import "wasi_snapshot_preview1" "clock_res_get" (func $res (param i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
(memory (export "memory") 4)
(func $print (param i32 i32) (i32.store (i32.const 0) (local.get 0)) (i32.store (i32.const 4) (local.get 1))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
"""
#: 2000-01-01 00:00:00 UTC, in nanoseconds.
_BEGIN = 946_684_800 * 10**9
_MS = 10**6


def _run(wat: Wat, body: str, seed: int | None = 0) -> bytes:
    done = execute(Job(wat(f'{_IMPORTS} (func (export "_start") {body})'), seed=seed))
    assert done.status == Exited(0)
    return done.stdout


def _numbers(data: bytes, size: int = 8) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def _subscription(at: int, word: int, kind: int, clock: int, time: int, flags: int = 0) -> str:
    values = ((0, word), (8, kind), (16, clock), (24, time), (40, flags))
    return "".join(f"(i64.store (i32.const {at + more}) (i64.const {value}))" for more, value in values)


def test_the_same_seed_gives_the_same_world(wasm: Wasm) -> None:
    seen = [execute(Job(wasm("chance"), seed=seed)) for seed in (7, 7, 8)]
    assert seen[0].stdout == seen[1].stdout
    assert seen[0].fuel_used == seen[1].fuel_used
    assert seen[0].stdout[:32] != seen[2].stdout[:32]
    assert seen[0].stdout[32:] == seen[2].stdout[32:]


def test_the_world_of_any_other_job_is_the_machines(wasm: Wasm) -> None:
    first, second = (execute(Job(wasm("chance"))).stdout for _ in range(2))
    assert first[:32] != second[:32]
    assert _numbers(first)[4] > _BEGIN + 10**18 // 2


def test_a_pool_and_a_worker_have_the_same_world(wasm: Wasm) -> None:
    with Pool(1) as pool:
        assert pool.run(Job(wasm("chance"), seed=7)).stdout == execute(Job(wasm("chance"), seed=7)).stdout


@pytest.mark.parametrize("seed", [0, 1, MAX_INTEGER])
def test_random_bytes_are_those_of_a_documented_generator(wat: Wat, seed: int) -> None:
    body = """(drop (call $random (i32.const 100) (i32.const 16)))
      (drop (call $random (i32.const 116) (i32.const 70000)))
      (call $print (i32.const 100) (i32.const 70016))"""
    generator = random.Random(seed)  # noqa: S311 - the one that is documented
    assert _run(wat, body, seed) == generator.randbytes(16) + generator.randbytes(70_000)


def test_clocks_begin_at_one_time_and_move_when_they_are_looked_at(wat: Wat) -> None:
    body = """(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 64)))
      (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 72)))
      (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 80)))
      (drop (call $res (i32.const 1) (i32.const 88))) (call $print (i32.const 64) (i32.const 32))"""
    assert _numbers(_run(wat, body)) == [_BEGIN + _MS, 2 * _MS, _BEGIN + 3 * _MS, _MS]


@pytest.mark.parametrize("clock", [2, 3, 4, 2**31])
def test_clocks_of_the_processor_are_refused(wat: Wat, clock: int) -> None:
    body = f"""(i32.store (i32.const 64) (call $clock (i32.const {clock}) (i64.const 0) (i32.const 80)))
      (i32.store (i32.const 68) (call $res (i32.const {clock}) (i32.const 80)))
      (call $print (i32.const 64) (i32.const 8))"""
    assert _numbers(_run(wat, body), 4) == [28, 28]


def _polled(wat: Wat, *subscriptions: str) -> tuple[int, int, bytes]:
    """Errno, events, and what is in the events; then the monotonic clock."""
    body = f"""{"".join(subscriptions)}
      (i32.store (i32.const 64) (call $poll (i32.const 1024) (i32.const 4096)
        (i32.const {len(subscriptions)}) (i32.const 68)))
      (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 72)))
      (call $print (i32.const 64) (i32.const 16)) (call $print (i32.const 4096) (i32.const 128))"""
    out = _run(wat, body)
    errno, count = _numbers(out[:8], 4)
    return errno, _numbers(out[8:16])[0], out[16 : 16 + 32 * count]


def test_waiting_costs_no_time_and_moves_the_clocks(wat: Wat) -> None:
    hour = 3600 * 10**9
    errno, clock, events = _polled(
        wat, _subscription(1024, 7, 0, 1, 2 * hour), _subscription(1072, 8, 0, 0, hour)
    )
    assert (errno, clock) == (0, hour + _MS)
    assert events == (8).to_bytes(8, "little") + bytes(24)


def test_a_time_of_a_clock_may_be_waited_for(wat: Wat) -> None:
    _, clock, events = _polled(wat, _subscription(1024, 7, 0, 0, _BEGIN + 50 * _MS, flags=1))
    assert (clock, len(events)) == (51 * _MS, 32)
    _, clock, events = _polled(wat, _subscription(1024, 7, 0, 0, 5, flags=1))
    assert (clock, len(events)) == (_MS, 32)


def test_descriptors_are_ready_at_once(wat: Wat) -> None:
    _, clock, events = _polled(
        wat,
        _subscription(1024, 7, 0, 1, 10**9),
        _subscription(1072, 8, 1, 0, 0),
        _subscription(1120, 9, 2, 1, 0),
    )
    assert clock == _MS
    assert [(event[0], event[10], event[16]) for event in (events[:32], events[32:])] == [
        (8, 1, 1),
        (9, 2, 1),
    ]


def test_waiting_for_nothing_is_refused(wat: Wat) -> None:
    body = """(i32.store (i32.const 64) (call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
      (i32.store (i32.const 68) (call $poll (i32.const 0) (i32.const 0) (i32.const 1025) (i32.const 0)))
      (call $print (i32.const 64) (i32.const 8))"""
    assert _numbers(_run(wat, body), 4) == [28, 28]


@pytest.mark.parametrize(
    "call",
    [
        "(call $random (i32.const 262140) (i32.const 8))",
        "(call $random (i32.const 0) (i32.const -1))",
        "(call $clock (i32.const 0) (i64.const 0) (i32.const 262140))",
        "(call $res (i32.const 0) (i32.const -4))",
        "(call $poll (i32.const 262120) (i32.const 0) (i32.const 1) (i32.const 0))",
        "(call $poll (i32.const 0) (i32.const 262120) (i32.const 1) (i32.const 0))",
        "(call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const -2))",
    ],
)
def test_memory_that_it_does_not_have_is_a_trap(wat: Wat, call: str) -> None:
    done = execute(Job(wat(f'{_IMPORTS} (func (export "_start") (drop {call}))'), seed=0))
    assert done.status == Trapped("pointer out of bounds")


def test_its_input_is_there_before_it_starts() -> None:
    with Worker() as worker, pytest.raises(JobRefusedError, match="all of its input before"):
        worker.run(Job(b"", seed=0), Streams(stdin=Descriptor(0)))


@pytest.mark.parametrize("seed", [-1, MAX_INTEGER + 1])
def test_seeds_that_no_receipt_can_carry_are_refused(seed: int) -> None:
    with pytest.raises(JobRefusedError, match="a seed from 0"):
        execute(Job(b"", seed=seed))


def test_a_deterministic_job_that_waits_for_ever_ends_by_its_fuel(wat: Wat) -> None:
    body = f"""{_subscription(1024, 7, 0, 1, 10**18)} (loop $l
      (drop (call $poll (i32.const 1024) (i32.const 4096) (i32.const 1) (i32.const 68))) (br $l))"""
    module = wat(f'{_IMPORTS} (func (export "_start") {body})')
    runs = [execute(Job(module, seed=0, limits=Limits(fuel=20_000))) for _ in range(2)]
    assert str(runs[0].status) == "LimitHit(limit='fuel')"
    assert runs[0].fuel_used == runs[1].fuel_used == 20_000
