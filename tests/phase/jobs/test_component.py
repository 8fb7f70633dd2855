"""Components (WASI 0.2) as jobs: what holds for modules holds for them, or is refused by name."""

import contextlib
import functools
import os
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from fixtures.binary import section
from fixtures.components import command
from fixtures.modules import corpus
from phase.jobs import component, wire
from phase.jobs.cache import Cache
from phase.jobs.flow import Descriptor, Streams
from phase.jobs.job import Directory
from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Execution, Job, Worker, execute
from phase.jobs.status import Exited, LimitHit, Rejected, Status, Trapped

FIXTURES = Path(__file__).parents[3] / "fixtures"
_FUEL = Limits(fuel=10_000_000)


_MANY = "(core instance (instantiate $m))" * 70
_TOO_MANY = "resource limit exceeded: instance count too high at 65"


def _exits(code: int) -> bytes:
    return command(
        f"(call $exit (i32.const {code})) unreachable",
        '(import "e" "exit" (func $exit (param i32)))',
        before="""(import "wasi:cli/exit@0.2.0"
            (instance $exits (export "exit" (func (param "status" (result))))))
          (core func $exit (canon lower (func $exits "exit")))""",
        functions="exit",
    )


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
        (
            command().replace(b"(result (result))", b"(result u32)"),
            Trapped("its run returned something else than a result"),
        ),
        (command("i32.const 0", "(start $s) (func $s)", more=_MANY), Trapped(_TOO_MANY)),
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
        (command(more=_MANY), _TOO_MANY),
        (command(more="(core func (canon backpressure.inc))"), "requires the component model async feature"),
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


def test_a_module_counts_as_often_as_it_is_started() -> None:
    text = command(fields="(table 1000 1000 funcref)", more="(core instance (instantiate $m))" * 2)
    assert _run(text).memory_bytes == 3 * 8000


def test_a_module_that_comes_back_from_a_component_leaves_the_memory_unknown() -> None:
    text = command(
        fields="(table 10 10 funcref)",
        more="""(component $c (import "m" (core module $x)) (export "m" (core module $x)))
          (instance $back (instantiate $c (with "m" (core module $m))))
          (alias export $back "m" (core module $other))
          (core module $large (table 1000 1000 funcref))
          (core instance (instantiate $other)) (core instance (instantiate $large))""",
    )
    done = _run(text)
    assert (done.status, done.memory_bytes) == (Exited(0), None)


def test_a_table_that_may_grow_leaves_the_memory_unknown() -> None:
    assert _run(command(fields="(table 1 funcref)")).memory_bytes is None


_TWICE = command(
    before="""(component $c
        (core module $m (memory 300) (table 1 1 funcref)) (core instance (instantiate $m)))
      (instance (instantiate $c)) (instance (instantiate $c))"""
)


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


@pytest.mark.parametrize(
    "fields", [(), (b"component",), (b"component", b"1 2", b""), (b"component", b"1 2 0", b"3")]
)
def test_what_was_kept_wrongly_is_told(fields: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match=r"unpack|split"):
        component.unpacked(wire.pack(*fields))


def test_names_are_left_out_and_the_rest_stays() -> None:
    parts = component.read(_binary())
    again = component.read(parts.module)
    assert len(parts.module) < len(_binary())
    assert again.module == parts.module
    assert component.read(_binary() + section(0, b"\4note" + bytes(100))).module == parts.module
    assert (parts.known, parts.largest, parts.start, parts.memories) == (None, 1, 0, 1)
    assert component.unpacked(parts.packed()).packed() == parts.packed()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_network_is_refused(kind: str) -> None:
    text = (FIXTURES / "connects.wat").read_text().replace("tcp", kind)
    assert _run(text.encode()).status == Exited(1), "not a trap: it was told access-denied"


def _made(name: str) -> bytes:
    return corpus.built(f"p2-{name}").read_bytes()


class _Slowly:
    """Input that comes in parts, each when there is nothing else to do."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)

    def fileno(self) -> None:
        """It never blocks."""

    def read(self, most: int) -> bytes:
        part = self._parts[0][:most] if self._parts else b""
        self._parts = [self._parts[0][most:], *self._parts[1:]] if self._parts else []
        if self._parts and not self._parts[0]:
            self._parts.pop(0)
        return part


def test_a_stream_is_read_to_its_end() -> None:
    parts = (b"one two\n", b"three " * 100_000, b"\nfour")
    done = execute(Job(_made("zigcc-words")), streams=Streams(stdin=_Slowly(*parts)))
    assert done.status == Exited(0)
    assert done.stdout == b"2 lines, 100003 words, 600013 bytes\n"
    assert done.input.length == 600_013


def test_a_component_waits_for_input_that_does_not_come_until_its_wall_limit() -> None:
    reader, writer = os.pipe()
    streams = Streams(stdin=Descriptor(reader))
    done = execute(Job(_made("zigcc-words"), limits=Limits(wall_seconds=2)), streams=streams)
    os.close(reader)
    os.close(writer)
    assert (done.status, done.input.length) == (LimitHit("wall"), 0)


@pytest.mark.parametrize(("module", "most"), [("zigcc-clock", 20_000), ("component.wat", 0)])
def test_little_is_read_ahead_and_nothing_for_a_component_without_input(module: str, most: int) -> None:
    given = (FIXTURES / module).read_bytes() if "." in module else _made(module)
    done = execute(Job(given), streams=Streams(stdin=_Slowly(b"x" * 1_000_000)))
    assert done.status == Exited(0)
    assert done.input.length <= most


def test_input_over_its_limit_ends_the_job() -> None:
    job = Job(_made("zigcc-words"), limits=Limits(stdin_bytes=10_000))
    done = execute(job, streams=Streams(stdin=_Slowly(b"x" * 10_001)))
    assert done.status == LimitHit("stdin")


def test_output_ends_at_its_limit_while_it_flows() -> None:
    done = execute(Job((FIXTURES / "component.wat").read_bytes(), limits=Limits(output_bytes=5)))
    assert (done.status, done.stdout) == (LimitHit("output"), b"a com")


@pytest.mark.parametrize("kind", ["zigcc-copy", "p2-zigcc-copy"])
def test_a_component_has_the_files_of_a_module(kind: str, tmp_path: Path) -> None:
    module, given = corpus.built(kind).read_bytes(), bytes(range(256)) * 100
    done = execute(Job(module, inputs={"a": given}, outputs=["b"]))
    assert (done.status, done.stdout, done.files) == (Exited(0), given, {"b": given})
    assert "mounts" in done.cage
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/a").write_bytes(given)
    for writable, code in ((False, 1), (True, 0)):
        shared = (
            Directory(str(tmp_path / "in"), "/input", writable=False),
            Directory(str(tmp_path / "out"), "/output", writable=writable),
        )
        assert execute(Job(module, directories=shared)).status == Exited(code)
        assert (tmp_path / "out/b").exists() == writable
    assert (tmp_path / "out/b").read_bytes() == given
    assert execute(Job(module)).stderr.startswith(b"/input/a: ")
