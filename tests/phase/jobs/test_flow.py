"""A job's input and output as they come: real workers, real pipes."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phase.jobs.flow import Collected, Content, Descriptor, Streams
from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Execution, Job, execute
from phase.jobs.status import Exited, Killed, LimitHit

Wat = Callable[[str], bytes]
Wasm = Callable[[str], bytes]

#: Reads from a descriptor, so many bytes at a time, and writes them to stdout, until there are none.
_CAT = """(memory (export "memory") 4)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {size}))
      (if (call $fd_read (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 9))))
      (if (i32.eqz (i32.load (i32.const 8))) (then return))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))
        (then (call $proc_exit (i32.const 8))))
      (br $more)))"""
#: Prints 64 KiB at a time, for ever, whatever becomes of it.
_FLOOD = """(memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65536))
    (loop $l (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l)))"""


def _content(data: bytes) -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            assert end is not None  # the test has closed it


@pytest.mark.parametrize("size", [1, 100, 65_536])
def test_input_is_read_as_it_is_asked_for_and_no_more(wat: Wat, pipe: tuple[int, int], size: int) -> None:
    module = wat(
        f"""(memory (export "memory") 4) (func (export "_start")
        (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const {size}))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))))"""
    )
    os.write(pipe[1], b"x" * 60_000)
    done = execute(Job(module), streams=Streams(stdin=Descriptor(pipe[0])))
    assert done.status == Exited(0)
    taken = min(size, 60_000)
    assert done.input == _content(b"x" * taken)
    os.close(pipe[1])
    with open(pipe[0], "rb", closefd=False) as left:
        assert len(left.read()) == 60_000 - taken


def test_input_that_is_not_read_is_left_alone(wasm: Wasm, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"for the next")
    done = execute(Job(wasm("data")), streams=Streams(stdin=Descriptor(pipe[0])))
    assert done.input == _content(b"")
    assert os.read(pipe[0], 100) == b"for the next"


@pytest.mark.parametrize("size", [1000, 65_536])
def test_input_of_a_file_flows_through(wat: Wat, tmp_path: Path, size: int) -> None:
    given = os.urandom(300_001)
    path = tmp_path / "given"
    path.write_bytes(given)
    with path.open("rb", buffering=0) as file:
        module = wat(_CAT.format(size=size, fd=0))
        done = execute(Job(module), streams=Streams(stdin=Descriptor(file.fileno())))
    assert (done.status, done.stdout == given) == (Exited(0), True)
    assert done.input == done.output == _content(given)


def test_input_that_comes_late_is_answered_at_once(wat: Wat, pipe: tuple[int, int]) -> None:
    out = os.pipe()
    results: list[Execution] = []
    streams = Streams(stdin=Descriptor(pipe[0]), stdout=Descriptor(out[1]))
    job = Job(wat(_CAT.format(size=100, fd=0)))
    runner = threading.Thread(target=lambda: results.append(execute(job, streams=streams)))
    runner.start()
    for word in (b"one", b"two", b"three"):
        os.write(pipe[1], word)
        assert os.read(out[0], 100) == word  # while the job runs
    os.close(pipe[1])
    runner.join()
    os.close(out[0])
    os.close(out[1])
    assert (results[0].status, results[0].output) == (Exited(0), _content(b"onetwothree"))


def test_input_that_never_comes_does_not_stop_the_clock(wat: Wat, pipe: tuple[int, int]) -> None:
    begun = time.monotonic()
    limits = Limits(wall_seconds=0.5)
    done = execute(
        Job(wat(_CAT.format(size=100, fd=0)), limits=limits), streams=Streams(stdin=Descriptor(pipe[0]))
    )
    assert (done.status, done.fuel_used, done.memory_bytes) == (LimitHit("wall"), None, 4 * 65536)
    assert done.wall_seconds < 5
    assert time.monotonic() - begun < 20


def test_input_over_its_limit_ends_the_job(wat: Wat, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x" * 101)
    os.close(pipe[1])
    job = Job(wat(_CAT.format(size=7, fd=0)), limits=Limits(stdin_bytes=100))
    done = execute(job, streams=Streams(stdin=Descriptor(pipe[0])))
    assert (done.status, done.input.length) == (LimitHit("stdin"), 100)


def test_input_of_exactly_its_limit_is_fine(wat: Wat, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x" * 100)
    os.close(pipe[1])
    job = Job(wat(_CAT.format(size=7, fd=0)), limits=Limits(stdin_bytes=100))
    done = execute(job, streams=Streams(stdin=Descriptor(pipe[0])))
    assert (done.status, done.stdout) == (Exited(0), b"x" * 100)


@pytest.mark.parametrize("streamed", [False, True])
def test_descriptors_mean_the_same_however_input_comes(
    wat: Wat, pipe: tuple[int, int], streamed: bool
) -> None:
    """A renumbered one is read by its new number, a closed one is an error, output cannot be read."""
    os.write(pipe[1], b"abc")
    os.close(pipe[1])
    streams = Streams(stdin=Descriptor(pipe[0])) if streamed else None
    ends = []
    for fields in (
        _CAT.format(size=2, fd=1),
        _CAT.format(size=2, fd=77),
        _CAT.format(size=2, fd=0).replace("(loop", "(drop (call $fd_close (i32.const 0))) (loop", 1),
        _CAT.format(size=2, fd=1).replace(
            "(loop", "(drop (call $fd_renumber (i32.const 0) (i32.const 1))) (loop", 1
        ),
    ):
        done = execute(Job(wat(fields), stdin=b"abc"), streams=streams)
        ends.append((done.status, done.stdout))
    # The last reads descriptor 1, which is its input then, and cannot print.
    assert ends[:3] == [(Exited(9), b"")] * 3
    assert ends[3] == (Exited(8), b"")


def _poll(timeout_ns: int) -> str:
    """Polls input and a clock; exits with 1 for input, 2 for the clock, 3 for both."""
    return f"""(memory (export "memory") 1) (func (export "_start") (local $seen i32)
      (i64.store (i32.const 0) (i64.const 1)) (i32.store8 (i32.const 8) (i32.const 1))
      (i64.store (i32.const 48) (i64.const 2)) (i32.store8 (i32.const 56) (i32.const 0))
      (i32.store (i32.const 64) (i32.const 1)) (i64.store (i32.const 72) (i64.const {timeout_ns}))
      (if (call $poll_oneoff (i32.const 0) (i32.const 1024) (i32.const 2) (i32.const 2048))
        (then (call $proc_exit (i32.const 99))))
      (local.set $seen (i32.load (i32.const 1024)))
      (if (i32.eq (i32.load (i32.const 2048)) (i32.const 2))
        (then (local.set $seen (i32.or (local.get $seen) (i32.load (i32.const 1056))))))
      (call $proc_exit (local.get $seen)))"""


def test_a_poll_sees_input_or_the_clock(wat: Wat, pipe: tuple[int, int]) -> None:
    streams = Streams(stdin=Descriptor(pipe[0]))
    assert execute(Job(wat(_poll(50_000_000))), streams=streams).status == Exited(2)
    os.write(pipe[1], b"x")
    assert execute(Job(wat(_poll(20_000_000_000))), streams=streams).status == Exited(1)


def test_a_poll_of_another_descriptor_takes_no_input(wat: Wat, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    other = _poll(50_000_000).replace(
        "(i32.const 8) (i32.const 1))",
        "(i32.const 8) (i32.const 1)) (i32.store (i32.const 16) (i32.const 7))",
    )
    done = execute(Job(wat(other)), streams=Streams(stdin=Descriptor(pipe[0])))
    assert done.input == _content(b"")
    assert os.read(pipe[0], 10) == b"x"


def test_fuel_does_not_depend_on_how_input_comes(wat: Wat, pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"abc")
    os.close(pipe[1])
    job = Job(wat(_CAT.format(size=7, fd=0)), stdin=b"abc")
    streamed = execute(job, streams=Streams(stdin=Descriptor(pipe[0])))
    assert streamed.fuel_used == execute(job).fuel_used
    assert streamed.memory_bytes == 4 * 65536


def test_output_is_there_while_the_job_runs(wat: Wat, pipe: tuple[int, int]) -> None:
    module = wat(_CAT.format(size=100, fd=0))  # waits after it has printed
    idle = os.pipe()
    os.write(idle[1], b"early")
    job = Job(module, limits=Limits(wall_seconds=20))
    streams = Streams(stdin=Descriptor(idle[0]), stdout=Descriptor(pipe[1]))
    runner = threading.Thread(target=lambda: execute(job, streams=streams))
    runner.start()
    assert os.read(pipe[0], 100) == b"early"
    assert runner.is_alive()
    os.close(idle[1])
    runner.join()
    os.close(idle[0])


def test_output_nobody_takes_does_not_stop_the_clock(wat: Wat, pipe: tuple[int, int]) -> None:
    done = execute(
        Job(wat(_FLOOD), limits=Limits(wall_seconds=0.5, output_bytes=1024 * MIB)),
        streams=Streams(stdout=Descriptor(pipe[1])),
    )
    assert done.status == LimitHit("wall")
    assert done.wall_seconds < 10
    os.close(pipe[1])
    with open(pipe[0], "rb", closefd=False) as file:
        assert done.output == _content(file.read())


def test_output_that_is_taken_late_is_not_taken_after_the_limit(wasm: Wasm, pipe: tuple[int, int]) -> None:
    """The job has ended in time, its reader has not."""
    job = Job(wasm("hello"), stdin=b"x" * 200_000, limits=Limits(wall_seconds=0.7))
    done = execute(job, streams=Streams(stdout=Descriptor(pipe[1])))
    assert done.status == LimitHit("wall")
    assert 0 < done.output.length < 200_000


def test_output_to_a_reader_that_leaves_is_an_error_of_the_modules(wat: Wat, pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    source = os.pipe()
    os.write(source[1], b"some words")
    os.close(source[1])
    streams = Streams(stdin=Descriptor(source[0]), stdout=Descriptor(pipe[1]))
    done = execute(Job(wat(_CAT.format(size=2, fd=0))), streams=streams)
    os.close(source[0])
    assert done.status == Exited(8)
    assert isinstance(done.undelivered["stdout"], BrokenPipeError)
    assert done.output == _content(b"")


def test_output_to_a_full_disk_is_told_by_name(wasm: Wasm) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    done = execute(Job(wasm("hello"), stdin=b"ab"), streams=Streams(stdout=Descriptor(full)))
    os.close(full)
    assert done.undelivered["stdout"].strerror == "No space left on device"


def test_output_that_a_file_took_before_it_was_full_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "out"
    code = f"""
import os, resource, signal
from phase.jobs.flow import Descriptor
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
sink = Descriptor(os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT))
print(sink.write(memoryview(bytes(100_000))))
try:
    sink.write(memoryview(b"x"))
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout.split() == [b"70000", str(errno.EFBIG).encode()]
    assert path.stat().st_size == 70_000


@pytest.mark.parametrize("limit", [100_001, 65_536, 1])
def test_output_is_cut_at_its_limit_while_it_flows(wasm: Wasm, pipe: tuple[int, int], limit: int) -> None:
    taken = Collected()

    def take() -> None:
        while part := os.read(pipe[0], 9999):
            taken.write(memoryview(part))

    reader = threading.Thread(target=take)
    reader.start()
    streams = Streams(stdout=Descriptor(pipe[1]))
    done = execute(Job(wasm("flood"), limits=Limits(output_bytes=limit)), streams=streams)
    os.close(pipe[1])
    reader.join()
    assert done.status == LimitHit("output")
    assert (bytes(taken.data), done.output) == (b"x" * limit, _content(b"x" * limit))
    assert done.stdout == b""


def test_output_goes_to_a_socket(wasm: Wasm) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = execute(Job(wasm("hello"), stdin=b"abc"), streams=Streams(stdout=Descriptor(theirs.fileno())))
        assert done.status == Exited(0)
        assert ours.recv(10) == b"cba"


def test_output_takes_constant_memory(wat: Wat) -> None:
    """64 MiB flow through a process that may have 24 MiB more than it has."""
    code = """
import os, resource, sys
from phase.jobs import Descriptor, Job, Limits, Streams
from phase.jobs.runner import Worker
with Worker() as worker:
    worker.wait_ready()
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[5]) * 4096
    resource.setrlimit(resource.RLIMIT_DATA, (used + (24 << 20), resource.RLIM_INFINITY))
    job = Job(sys.stdin.buffer.read(), limits=Limits(output_bytes=64 << 20))
    done = worker.run(job, Streams(stdout=Descriptor(1)))
    print(done.status, done.output.length, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=wat(_FLOOD),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=100,
        check=False,
    )
    assert done.stderr == b"LimitHit(limit='output') 67108864\n"


def test_a_job_ends_when_its_requester_says_so(wat: Wat, pipe: tuple[int, int]) -> None:
    """Also one that computes, and asks for nothing."""
    module = wat("""(func (export "_start") (loop $l (br $l)))""")
    threading.Timer(0.3, os.write, (pipe[1], b"x")).start()
    execution = execute(Job(module, limits=Limits(fuel=2**53 - 1)), streams=Streams(stop=pipe[0]))
    assert execution.status == Killed(signal.SIGTERM, "cancelled by its requester")
