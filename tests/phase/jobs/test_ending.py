"""How `phase.jobs.runner` tells the ways apart in which a job ends, and what it hands to the worker."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from phase.jobs import runner, wire
from phase.jobs.errors import EngineError, JobRefusedError
from phase.jobs.flow import Collected, Inlet, Messages, Outlet, Pump
from phase.jobs.job import request
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.runner import Job, Worker
from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Status, Trapped

DONE = [b"exited", b"3", b"70", b"80"]


def pump(**marks: Any) -> Pump:
    """One that has run; what is given is set on it, its inlet and its messages."""
    inlet, messages = Inlet(None, -1, 0), Messages(-1, -1)
    made = Pump((b"", -1), inlet, (Outlet(-1, Collected()), Outlet(-1, Collected())), messages, 0)
    made.over, made.late = marks.get("over", False), marks.get("late", False)
    inlet.over = marks.get("stdin", False)
    messages.done, messages.running = marks.get("done"), marks.get("running", False)
    messages.compile_bytes = marks.get("compile_bytes", 0)
    messages.printed = bytearray(marks.get("printed", b""))
    if marks.get("open"):
        made.outlets[1].pipe = 99
    return made


@pytest.mark.parametrize(
    ("marks", "signalled", "expected"),
    [
        ({"done": DONE}, 0, (Exited(3), 70, 80)),
        # What it said before it was killed counts: it is killed after its last word, too.
        ({"done": DONE}, signal.SIGKILL, (Exited(3), 70, 80)),
        ({"done": DONE, "over": True}, 0, (LimitHit("output"), None, None)),
        ({"done": DONE, "stdin": True}, 0, (LimitHit("stdin"), None, None)),
        ({"over": True, "stdin": True, "late": True}, 0, (LimitHit("output"), None, None)),
        ({"late": True}, signal.SIGKILL, (LimitHit("wall"), None, None)),
        ({"late": True, "done": DONE}, 0, (Exited(3), 70, 80)),
        ({"late": True, "done": DONE, "open": True}, 0, (LimitHit("wall"), 70, 80)),
        ({"done": DONE, "open": True}, 0, (Exited(3), 70, 80)),
        ({}, signal.SIGXCPU, (LimitHit("wall"), None, None)),
        ({}, 0, (Killed(0), None, None)),
        ({"printed": b" it broke\n"}, 6, (Killed(6, "it broke"), None, None)),
        ({"printed": b"a" + b"b" * 500}, 6, (Killed(6, "b" * 500), None, None)),
        ({"printed": b"\x1b[2J\xff"}, 6, (Killed(6, " [2J\ufffd"), None, None)),
        ({"printed": b"MemoryError", "running": True}, 6, (LimitHit("memory"), None, None)),
        ({"printed": b"so: out of memory!"}, 6, (Rejected(wire.too_large(64 << 20)), 0, 0)),
        (
            {"printed": b"MemoryError", "compile_bytes": 32 << 20},
            6,
            (Rejected(wire.too_large(32 << 20)), 0, 0),
        ),
    ],
)
def test_each_end_has_its_name(
    marks: dict[str, Any], signalled: int, expected: tuple[Status, int | None, int | None]
) -> None:
    limits = Limits(compile_bytes=64 << 20)
    assert runner._ending(pump(**marks), signalled, limits) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([b"exited", b"-1", b"", b""], None),
        ([b"trapped", b"why\n", b"0", b"5"], (Trapped("why "), 0, 5)),
        ([b"rejected", b"x" * 501, b"0", b"0"], (Rejected("x" * 500), 0, 0)),
        ([b"limit", b"fuel", b"1", b"2"], (LimitHit("fuel"), 1, 2)),
        ([b"limit", b"wall", b"1", b"2"], (LimitHit("wall"), 1, 2)),
        ([b"limit", b"memory", b"1", b"2"], (LimitHit("memory"), 1, 2)),
        ([b"limit", b"output", b"1", b"2"], (LimitHit("output"), 1, 2)),
        ([b"exited", b"0", b"-7", str(1 << 60).encode()], (Exited(0), 0, MAX_INTEGER)),
        ([], None),
        ([b"limit", b"stdin", b"1", b"2"], None),
        ([b"limit", b"patience", b"1", b"2"], None),
        ([b"else", b"", b"", b""], None),
        ([b"exited", b"none", b"", b""], None),
        ([b"exited", b"0", b"much", b""], None),
        ([b"exited", b"0", b""], None),
        ([b"exited", b"\xff", b"", b""], None),
    ],
)
def test_a_workers_last_words_are_read_and_not_trusted(
    fields: list[bytes], expected: tuple[Status, int | None, int | None] | None
) -> None:
    assert runner._result(fields) == expected


def _request(job: Job, *, streamed: bool) -> bytes:
    return request(job, b"", 0, streamed=streamed)


def test_a_job_goes_to_the_worker_whole() -> None:
    limits = Limits(
        fuel=5,
        wall_seconds=1.5,
        memory_bytes=6,
        output_bytes=7,
        compile_bytes=8,
        stdin_bytes=2,
        module_bytes=3,
    )
    job = Job(b"abc", args=["a", "é"], stdin=b"in", env={"K": "=v", "L": ""}, limits=limits)
    module, stdin, args, env, numbers, held, _ = wire.unpack(_request(job, streamed=False))
    assert (module, stdin, numbers, held) == (b"abc", b"in", b"5 1500 6 7 8 0 0 -1", b"")
    assert wire.unpack(args) == [b"module", b"a", "é".encode()]
    assert wire.unpack(env) == [b"K", b"=v", b"L", b""]
    assert wire.unpack(_request(job, streamed=True))[1::3] == [b"", b"5 1500 6 7 8 1 0 -1"]
    quick = Job(b"", limits=Limits(wall_seconds=0.0001))
    assert wire.unpack(_request(quick, streamed=False))[4].split()[1] == b"1"


def test_words_of_exactly_the_limits_are_taken() -> None:
    _request(Job(b"", args=["a"] * 1023), streamed=False)
    with pytest.raises(JobRefusedError, match="1025 words"):
        _request(Job(b"", args=["a"] * 1024), streamed=False)
    _request(Job(b"", args=["a" * (131_072 - 6)]), streamed=False)
    with pytest.raises(JobRefusedError, match="131073 bytes"):
        _request(Job(b"", args=["a" * (131_072 - 5)]), streamed=False)


@pytest.mark.parametrize("env", [{"": "x"}, {"A\0": "x"}, {"A": "\0"}, {"=": ""}])
def test_variables_that_no_environment_can_have_are_refused(env: dict[str, str]) -> None:
    with pytest.raises(JobRefusedError, match="NUL"):
        _request(Job(b"", env=env), streamed=False)


@pytest.mark.parametrize(
    ("says", "prints", "words"),
    [
        (b"", b"first\nlast words\n", "did not load its engine: last words"),
        (b"", b"", "did not load its engine: no reason given"),
    ],
)
def test_a_worker_that_leaves_before_its_engine_is_there(says: bytes, prints: bytes, words: str) -> None:
    with _unready(says, prints) as worker, pytest.raises(EngineError, match=words):
        worker.wait_ready()


def test_what_a_worker_lacks_is_told_printable_and_once() -> None:
    frame = wire.pack(wire.READY, wire.pack(b"filter"), wire.pack(b"no \x1b namespace", b"\xff"))
    with _unready(len(frame).to_bytes(4, "little") + frame, b"") as worker:
        assert worker.wait_ready() == (("filter",), ("no   namespace", "\ufffd"))
        assert worker.wait_ready() == (("filter",), ("no   namespace", "\ufffd"))


def _unready(says: bytes, prints: bytes) -> Worker:
    """A real worker, with its control and diagnostics replaced by pipes that say this."""
    worker = Worker()
    for number, said in ((2, prints), (3, says)):
        reader, writer = os.pipe()
        os.write(writer, said)
        os.close(writer)
        os.close(worker._ends[number])
        worker._ends[number] = reader
    return worker


def test_a_worker_that_makes_no_sense_is_killed(wasm: Callable[[str], bytes]) -> None:
    reader, writer = os.pipe()
    with Worker() as worker:
        worker.wait_ready()
        own = worker._ends[3]
        worker._ends[3] = reader
        frame = wire.pack(b"nonsense")
        os.write(writer, len(frame).to_bytes(4, "little") + frame)
        began = time.monotonic()
        done = worker.run(Job(wasm("spin"), limits=Limits(fuel=MAX_INTEGER, wall_seconds=20)))
        assert time.monotonic() - began < 15
    os.close(own)
    os.close(writer)
    assert isinstance(done.status, Killed)
    assert done.status.signal == signal.SIGKILL
    assert done.status.reason == "another process ended it, or the kernel did because memory ran out"


def test_a_closed_worker_may_be_closed_again() -> None:
    worker = Worker()
    worker.close()
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
