"""Components (WASI 0.2) as jobs: what holds for modules holds for them, or is refused by name."""

import contextlib
import functools
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from fixtures.binary import section
from phase.jobs import component
from phase.jobs.cache import Cache
from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Execution, Job, Worker, execute
from phase.jobs.status import Exited, LimitHit, Rejected, Status, Trapped

FIXTURES = Path(__file__).parents[3] / "fixtures"
_FUEL = Limits(fuel=10_000_000)


def command(
    body: str = "i32.const 0", fields: str = "", *, before: str = "", lift: str = "(result)"
) -> bytes:
    """Text of a component whose `run` is this body of a module with these fields."""
    return f"""(component {before}
        (core module $m {fields} (func (export "run") (result i32) {body}))
        (core instance $i (instantiate $m))
        (func $run (result {lift}) (canon lift (core func $i "run")))
        (instance $r (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $r)))""".encode()


_EXIT = """(import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
    (core func $exit (canon lower (func $exit "exit")))
    (core module $m (import "e" "exit" (func (param i32)))
      (func (export "run") (result i32) (call 0 (i32.const {})) (unreachable)))
    (core instance $i (instantiate $m (with "e" (instance (export "exit" (func $exit))))))"""


def _exits(code: int) -> bytes:
    text = command().decode().splitlines()
    return "\n".join([text[0], _EXIT.format(code), *text[3:]]).encode()


def _run(text: bytes, limits: Limits = _FUEL) -> Execution:
    return execute(Job(text, limits=limits))


def test_a_component_prints_and_its_receipt_can_say_all() -> None:
    done = execute(Job((FIXTURES / "component.wat").read_bytes()))
    assert (done.status, done.stdout, done.stderr) == (Exited(0), b"a component\n", b"")
    assert done.fuel_used is not None
    assert 0 < done.fuel_used < 1000
    assert done.memory_bytes == 1 << 16


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (command("i32.const 1"), Exited(1)),
        (_exits(0), Exited(0)),
        (_exits(1), Exited(1)),
        (command("unreachable"), Trapped("unreachable")),
        (command("(i32.load (i32.const -1))", "(memory 1)"), Trapped("memory out of bounds")),
        (command("(i32.div_u (i32.const 1) (i32.const 0))"), Trapped("integer division by zero")),
        (command("(call 0)"), Trapped("stack overflow")),
        (command("i32.const 7"), Trapped("discriminant 7 out of range [0..2)")),
        (command("(loop (br 0)) i32.const 0"), LimitHit("fuel")),
        (command("i32.const 0", "(start $s) (func $s unreachable)"), Trapped("unreachable")),
        (command("i32.const 0", "(start $s) (func $s (loop (br 0)))"), LimitHit("fuel")),
        (command("i32.const 0", lift="u32"), Trapped("its run returned something else than a result")),
    ],
)
def test_each_end_has_its_name(text: bytes, ends: Status) -> None:
    assert _run(text).status == ends


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"(component)", "component exports no wasi:cli/run of WASI 0.2; only commands can be run"),
        (command().replace(b"@0.2.3", b"@0.3.0"), "component exports no wasi:cli/run of WASI 0.2"),
        (
            command(before='(import "wasi:http/types@0.2.0" (instance (export "f" (func))))'),
            "component imports instance `wasi:http/types@0.2.0`",
        ),
        (b"\0asm\x0d\0\x01\0\x01\x7f", "it is a component that cannot be read: "),
        (b"\0asm\x0d\0\x01\0" + section(11, b"\1\0\x12wasi:cli/run@0.2.3"), "unexpected end"),
        (command(fields="(memory 1 2 shared)"), "its memory is shared between threads"),
        (command(fields="(memory 1)" * 17), "component has 17 linear memories; the limit is 16"),
        (command(fields="(table 1 funcref)" * 65), "component has 65 tables; the limit is 64"),
    ],
)
def test_what_cannot_run_is_refused_by_name(text: bytes, words: str) -> None:
    done = _run(text)
    assert isinstance(done.status, Rejected)
    assert words in done.status.reason
    assert done.fuel_used == 0


def test_a_deterministic_component_is_refused_because_its_clocks_cannot_be_given() -> None:
    done = execute(Job(command(), seed=0))
    assert isinstance(done.status, Rejected)
    assert done.status.reason.startswith("a component cannot be deterministic: its clocks and random bytes")


def test_a_component_that_was_kept_runs_again_without_being_compiled() -> None:
    cache = Cache(memory_bytes=8 * MIB)
    job = Job((FIXTURES / "component.wat").read_bytes(), limits=Limits(compile_bytes=64 * MIB))
    with Worker() as worker:
        first = worker.run(job, None, cache)
    # A compiler without memory cannot have made this one.
    with Worker() as worker:
        again = worker.run(Job(job.module, limits=Limits(compile_bytes=0)), None, cache)
    assert (again.stdout, again.fuel_used, again.memory_bytes) == (b"a component\n", *_told(first))


def _told(done: Execution) -> tuple[int | None, int | None]:
    return done.fuel_used, done.memory_bytes


def test_all_memories_and_tables_of_all_modules_count_together() -> None:
    text = command(fields="(memory 160) (memory 160) (table 1000 1000 funcref)")
    assert _run(text).memory_bytes == (320 << 16) + 8000
    assert _run(text, Limits(memory_bytes=20 * MIB)).status == LimitHit("memory")
    assert _run(command(fields="(table 9000000 9000000 funcref)"), Limits(memory_bytes=64 * MIB)).status == (
        LimitHit("memory")
    )


def test_a_table_that_may_grow_leaves_the_memory_unknown() -> None:
    assert _run(command(fields="(table 1 funcref)")).memory_bytes is None


_TWICE = b"""(component
  (component $c (core module $m (memory 300) (table 1 1 funcref)) (core instance (instantiate $m)))
  (instance (instantiate $c)) (instance (instantiate $c))""" + command().removeprefix(b"(component")


def test_modules_of_components_within_it_count_as_often_as_they_are_started() -> None:
    assert _run(_TWICE).status == Exited(0)
    assert _run(_TWICE).memory_bytes is None, "how often they are started, the engine alone knows"
    assert _run(_TWICE, Limits(memory_bytes=36 * MIB)).status == LimitHit("memory")


@given(st.data())
def test_reading_arbitrary_bytes_ends_in_a_value_error(data: st.DataObject) -> None:
    whole = _binary()
    cut = data.draw(st.integers(8, len(whole)))
    other = data.draw(st.binary(max_size=8))
    with contextlib.suppress(ValueError):
        component.read(whole[:cut] + other + whole[cut + data.draw(st.integers(0, 8)) :])


@functools.cache
def _binary() -> bytes:
    return bytes(wasmtime.wat2wasm(_TWICE.decode()))


def test_names_are_left_out_and_the_rest_stays() -> None:
    parts = component.read(_binary())
    again = component.read(parts.module)
    assert len(parts.module) < len(_binary())
    assert again.module == parts.module
    assert (parts.known, parts.largest, parts.start, parts.memories) == (None, 1, 0, 1)
    assert component.unpacked(parts.packed()).packed() == parts.packed()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_network_is_refused(kind: str) -> None:
    text = (FIXTURES / "connects.wat").read_text().replace("tcp", kind)
    assert _run(text.encode()).status == Exited(1), "not a trap: it was told access-denied"
