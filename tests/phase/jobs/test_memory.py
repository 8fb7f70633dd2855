"""One limit over linear memories, tables and the collector's heap, and a true peak."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Job, execute
from phase.jobs.status import Exited, LimitHit, Rejected, Trapped

Wat = Callable[[str], bytes]
_PAGE = 65536


def test_the_peak_of_a_memory_that_is_not_exported_is_known(wat: Wat) -> None:
    job = Job(wat('(memory 1) (func (export "_start") (drop (memory.grow (i32.const 99))))'))
    assert execute(job).memory_bytes == 100 * _PAGE


def test_the_peak_of_a_memory_exported_by_another_name_is_known(wat: Wat) -> None:
    job = Job(
        wat('(memory (export "ram") i64 3) (func (export "_start") (drop (memory.grow (i64.const 4))))')
    )
    assert execute(job).memory_bytes == 7 * _PAGE


def test_several_memories_share_one_limit(wat: Wat) -> None:
    grow = "".join(
        f"(if (i32.eq (memory.grow {n} (i32.const 20)) (i32.const -1)) (then {end}))"
        for n, end in (
            (0, "unreachable"),
            (1, "unreachable"),
            (2, "(memory.grow 1 (i32.const 1)) drop return"),
        )
    )
    module = wat(f'(memory 1) (memory 1) (memory 1) (func (export "_start") {grow} unreachable)')
    done = execute(Job(module, limits=Limits(memory_bytes=60 * _PAGE)))
    assert done.status == Exited(0)
    assert done.memory_bytes == 44 * _PAGE


def test_memories_that_start_over_their_limit_together_never_run(wat: Wat) -> None:
    module = wat("(memory 1)" * 16 + '(func $s unreachable) (start $s) (func (export "_start"))')
    assert execute(Job(module, limits=Limits(memory_bytes=16 * _PAGE))).status == Trapped("unreachable")
    assert execute(Job(module, limits=Limits(memory_bytes=16 * _PAGE - 1))).status == LimitHit("memory")


@pytest.mark.parametrize(
    ("field", "words"), [("(memory 0)", "17 linear memories"), ("(table 0 funcref)", "17 tables")]
)
def test_sixteen_memories_and_tables_are_the_most(wat: Wat, field: str, words: str) -> None:
    assert execute(Job(wat(field * 16 + '(func (export "_start"))'))).status == Exited(0)
    status = execute(Job(wat(field * 17 + '(func (export "_start"))'))).status
    assert isinstance(status, Rejected)
    assert words in status.reason


def _tables(wat: Wat, count: int, least: int, grow: int) -> bytes:
    tables = "".join(f"(table $t{n} {least} funcref)" for n in range(count))
    body = "".join(
        f"(drop (table.grow $t{n} (ref.null func) (i32.const {grow})))"
        f"(table.fill $t{n} (i32.const 0) (ref.null func) (table.size $t{n}))"
        for n in range(count)
    )
    return wat(f'(memory (export "memory") 1) {tables} (func (export "_start") {body})')


def test_tables_that_grow_are_inside_the_limit(wat: Wat) -> None:
    done = execute(Job(_tables(wat, 16, 1, 999_999), limits=Limits(memory_bytes=MIB)))
    assert done.status == Exited(0)
    assert done.memory_bytes == _PAGE + 16 * 8
    done = execute(Job(_tables(wat, 16, 1, 400), limits=Limits(memory_bytes=MIB)))
    assert done.memory_bytes == _PAGE + 16 * 8 * 401


def test_a_large_table_takes_from_what_the_memory_gets(wat: Wat) -> None:
    grow = '(func (export "_start") (drop (memory.grow (i32.const 15))))'
    module = wat(f"(memory 1) (table 1000 1000 funcref) {grow}")
    done = execute(Job(module, limits=Limits(memory_bytes=MIB)))
    assert (done.status, done.memory_bytes) == (Exited(0), _PAGE + 8000)
    done = execute(Job(module, limits=Limits(memory_bytes=MIB + 8000)))
    assert done.memory_bytes == MIB + 8000
    module = wat('(table 1000000 funcref) (func (export "_start"))')
    assert execute(Job(module, limits=Limits(memory_bytes=MIB))).status == LimitHit("memory")


@pytest.mark.parametrize("kind", ["anyref", "externref", "i31ref", "exnref", "(ref null func)"])
def test_tables_of_every_kind_are_counted(wat: Wat, kind: str) -> None:
    module = wat(f'(table 10 20 {kind}) (table i64 5 funcref) (func (export "_start"))')
    assert execute(Job(module)).memory_bytes == 120


def test_the_collectors_heap_is_inside_the_limit(wat: Wat) -> None:
    module = wat(
        """(type $a (array (mut i8))) (memory (export "memory") 1)
        (func (export "_start") (drop (memory.grow (i32.const 40)))
          (drop (array.new_default $a (i32.const 2000000))))"""
    )
    done = execute(Job(module, limits=Limits(memory_bytes=8 * MIB)))
    assert done.status == Exited(0)
    assert done.memory_bytes is not None
    assert 41 * _PAGE + 2_000_000 <= done.memory_bytes <= 8 * MIB
    assert execute(Job(module, limits=Limits(memory_bytes=4 * MIB))).status == LimitHit("memory")


@pytest.mark.parametrize("address", [65536, 0x7FFFFFFF, 0xFFFFFFFF])
def test_what_is_beyond_a_memory_cannot_be_touched(wat: Wat, address: int) -> None:
    module = wat(
        f'(memory 1) (func (export "_start") (drop (i64.load offset=0xffff (i32.const {address}))))'
    )
    assert execute(Job(module)).status == Trapped("memory out of bounds")


@pytest.mark.parametrize(
    ("address", "status"), [(196_604, Exited(0)), (196_605, Trapped("memory out of bounds"))]
)
def test_what_a_memory_grew_to_can_be_used(wat: Wat, address: int, status: object) -> None:
    body = f"(drop (memory.grow (i32.const 2))) (i32.store (i32.const {address}) (i32.const 9))"
    assert execute(Job(wat(f'(memory 1 3) (func (export "_start") {body})'))).status == status


def _execute_with(words: str, module: bytes, limits: str) -> str:
    """What becomes of a job in a process with a limit of its own."""
    code = f"""
import resource, sys
{words}
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
print(execute(Job(sys.stdin.buffer.read(), limits=Limits({limits}))).status)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=module, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


@pytest.mark.parametrize("fields", ["", "(func $f (drop (memory.grow (i32.const 100)))) (start $f)"])
def test_a_process_with_few_addresses_still_runs_jobs(wat: Wat, fields: str) -> None:
    module = wat(f"""(memory (export "memory") 1 200) {fields} (func (export "_start")
      (i32.store (i32.const 65532) (i32.const 1)))""")
    few = "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))"
    assert "Exited(code=0)" in _execute_with(few, module, "")
    beyond = wat("""(memory (export "memory") 1) (func (export "_start")
      (i32.store (i32.const 65533) (i32.const 1)))""")
    assert "memory out of bounds" in _execute_with(few, beyond, "")


def test_a_process_without_enough_addresses_is_not_called_a_memory_limit(wat: Wat) -> None:
    module = wat('(memory (export "memory") 1) (func (export "_start"))')
    said = _execute_with(
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))", module, "memory_bytes=2 << 30"
    )
    assert "Rejected" in said
    assert "ulimit -v" in said


@pytest.mark.parametrize("before", ["", "(memory 1) ", "(memory i64 1 300) "])
def test_a_memory_shared_between_threads_is_rejected(wat: Wat, before: str) -> None:
    module = wat(f'{before}(memory (export "memory") 1 300 shared) (func (export "_start"))')
    assert execute(Job(module)).status == Rejected(
        "its memory is shared between threads; a job has one thread"
    )


def test_bulk_memory_fills_the_whole(wat: Wat) -> None:
    body = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 1048576))"
    done = execute(Job(wat(f'(memory 16) (func (export "_start") {body})')))
    assert (done.status, done.memory_bytes) == (Exited(0), MIB)
