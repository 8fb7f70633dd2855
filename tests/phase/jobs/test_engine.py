"""How a job ends, and what the engine knows about it then."""

from collections.abc import Callable

import pytest
from wasmtime import TrapCode

from phase.jobs import traps
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
from phase.jobs.status import Exited, LimitHit, Rejected, Trapped

Wat = Callable[[str], bytes]
#: A loop that burns 4 units of fuel a round.
_BURN = """(local $i i32) (local.set $i (i32.const 100000))
  (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"""
_ARRAY = "(type $a (array (mut i64)))"


def test_fuel_of_a_job_that_traps_is_not_known(wat: Wat) -> None:
    done = execute(
        Job(wat(f'(memory 1) (func (export "_start") {_BURN} (drop (i32.load (i32.const 0x7fffffff))))'))
    )
    assert done.status == Trapped("memory out of bounds")
    assert done.fuel_used is None


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("", Exited(0)),
        ("return", Exited(0)),
        ("unreachable", Trapped("unreachable")),
        ("(call $proc_exit (i32.const 3))", Exited(3)),
    ],
)
def test_fuel_is_known_where_the_engine_has_written_it_down(wat: Wat, end: str, status: object) -> None:
    done = execute(Job(wat(f'(memory (export "memory") 1) (func (export "_start") {_BURN} {end})')))
    assert done.status == status
    assert done.fuel_used is not None
    assert 400_000 < done.fuel_used < 600_100


def test_fuel_of_a_job_that_never_ran_is_0(wat: Wat) -> None:
    assert execute(Job(b"not a module")).fuel_used == 0
    assert execute(Job(wat('(import "env" "f" (func)) (func (export "_start"))'))).fuel_used == 0


@pytest.mark.parametrize("code", [126, 127, 200, 255, 256, 2**32 - 1])
def test_exit_codes_above_125_are_the_modules_own(wat: Wat, code: int) -> None:
    job = Job(
        wat(f'(memory (export "memory") 1) (func (export "_start") (call $proc_exit (i32.const {code})))')
    )
    assert execute(job).status == Exited(code)


def test_a_start_function_that_prints_and_then_fails_has_run(wat: Wat) -> None:
    done = execute(
        Job(
            wat(
                r"""(memory (export "memory") 1) (data (i32.const 8) "hi\n")
                (func $begin (i32.store (i32.const 0) (i32.const 8)) (i32.store (i32.const 4) (i32.const 3))
                  (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
                  (drop (call $fd_write (i32.const 1) (i32.const 65532) (i32.const 9) (i32.const 20))))
                (start $begin) (func (export "_start"))"""
            )
        )
    )
    assert isinstance(done.status, Trapped)
    assert done.status.reason.startswith("Pointer out of bounds")
    assert done.stdout == b"hi\n"


def test_a_start_function_may_exit(wat: Wat) -> None:
    module = '(memory (export "memory") 1) (func $s (call $proc_exit (i32.const 7))) (start $s)'
    assert execute(Job(wat(f'{module} (func (export "_start"))'))).status == Exited(7)


@pytest.mark.parametrize("kind", ["(param i32)", "(param f64 f64)", "(result i32)", "(param v128)"])
def test_a_start_with_parameters_or_results_never_runs(wat: Wat, kind: str) -> None:
    job = Job(wat(f'(func $s unreachable) (start $s) (func (export "_start") {kind} unreachable)'))
    status = execute(job).status
    assert isinstance(status, Rejected)
    assert "_start has parameters or results" in status.reason


@pytest.mark.parametrize(
    "export", ['(global (export "_start") i32 (i32.const 0))', '(memory (export "_start") 1)']
)
def test_a_start_that_is_not_a_function_never_runs(wat: Wat, export: str) -> None:
    status = execute(Job(wat(f"(func $s unreachable) (start $s) {export}"))).status
    assert status == Rejected("module exports no function _start; only WASI commands can be run")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(drop (array.len (ref.null $a)))", "null reference"),
        ("(drop (array.get $a (array.new_default $a (i32.const 1)) (i32.const 5)))", "array out of bounds"),
        ("(drop (ref.cast (ref $a) (ref.i31 (i32.const 1))))", "cast failure"),
        ("(throw $t)", "uncaught exception"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer division by zero"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "bad conversion to integer"),
    ],
)
def test_traps_are_named(wat: Wat, body: str, reason: str) -> None:
    assert execute(Job(wat(f'{_ARRAY} (tag $t) (func (export "_start") {body})'))).status == Trapped(reason)


def test_every_trap_of_this_engine_has_a_name() -> None:
    assert [code.value for code in TrapCode] == list(range(len(traps.TRAPS)))
    assert traps.TRAPS[TrapCode.INTERRUPT.value] == "interrupt"
    assert traps.TRAPS[TrapCode.OUT_OF_FUEL.value] == "out of fuel"
    assert traps.TRAPS[TrapCode.CAST_FAILURE.value] == "cast failure"
    assert traps.TRAPS[TrapCode.UNCAUGHT_EXCEPTION.value] == "uncaught exception"
    assert traps.name(200) == "trap 200"


def test_a_segment_that_does_not_fit_is_a_trap(wat: Wat) -> None:
    done = execute(Job(wat('(memory 1) (data (i32.const 65535) "abc") (func (export "_start"))')))
    assert (done.status, done.fuel_used) == (Trapped("memory out of bounds"), None)


def test_a_full_heap_is_the_memory_limit(wat: Wat) -> None:
    keep = """(global $list (mut (ref null $n)) (ref.null $n))
      (type $n (struct (field (ref null $n)) (field (ref $a))))
      (func (export "_start") (loop $l
        (global.set $list (struct.new $n (global.get $list) (array.new_default $a (i32.const 10000))))
        (br $l)))"""
    done = execute(Job(wat(_ARRAY + keep), limits=Limits(memory_bytes=4 << 20)))
    assert done.status == LimitHit("memory")
    assert done.memory_bytes is not None
    assert 1 << 20 < done.memory_bytes <= 4 << 20
