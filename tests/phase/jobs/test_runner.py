"""Every limit, held against a module that tries: real engine, real worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phase.jobs import location
from phase.jobs.errors import EngineError, JobRefusedError, UnsuitableProcessorError
from phase.jobs.limits import MIB, Limits
from phase.jobs.protect import OWN
from phase.jobs.runner import Job, Worker, execute
from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Trapped

Wasm = Callable[[str], bytes]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hello, World", "dlroW ,olleH"),
        ("", ""),
        ("a", "a"),
        ("žluť €😀", "😀€ ťulž"),
        ("ab" * 500_000, "ba" * 500_000),
    ],
    ids=["hello", "empty", "one", "unicode", "megabyte"],
)
def test_hello_reverses_by_code_points(wasm: Wasm, given: str, expected: str) -> None:
    done = execute(Job(wasm("hello"), stdin=given.encode()))
    assert (done.status, done.stderr) == (Exited(0), b"")
    assert done.stdout.decode() == expected
    assert done.fuel_used is not None
    assert done.fuel_used > 0


@pytest.mark.parametrize("stdin", [b"\x80\x80\x80", b"\xff\x80a\xf0", b"\0\0"])
def test_hello_loses_no_byte_of_input_that_is_not_utf_8(wasm: Wasm, stdin: bytes) -> None:
    done = execute(Job(wasm("hello"), stdin=stdin))
    assert done.status == Exited(0)
    assert sorted(done.stdout) == sorted(stdin)


def test_hello_says_when_it_has_no_memory_for_its_input(wasm: Wasm) -> None:
    done = execute(Job(wasm("hello"), stdin=b"x" * MIB, limits=Limits(memory_bytes=MIB)))
    assert done.status == Exited(71)


@pytest.mark.parametrize("code", [0, 1, 42, 125])
def test_exit_codes_are_the_modules_own(wasm: Wasm, code: int) -> None:
    assert execute(Job(wasm("exit"), stdin=str(code).encode())).status == Exited(code)


def test_arguments_and_environment_are_given_and_nothing_else(
    wasm: Wasm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    done = execute(Job(wasm("world"), args=["--flag", "é", ""], env={"A": "1", "B": "=x"}))
    assert done.stdout == "module\0--flag\0é\0\0".encode()
    assert done.stderr == b"A=1\0B==x\0"


def test_a_module_with_data_segments_runs(wasm: Wasm) -> None:
    done = execute(Job(wasm("data")))
    assert (done.status, done.stdout) == (Exited(0), b"hello\nagain\n")


def test_fuel_stops_a_loop_and_is_all_burnt(wasm: Wasm) -> None:
    done = execute(Job(wasm("spin"), limits=Limits(fuel=1_000_000)))
    assert done.status == LimitHit("fuel")
    assert done.fuel_used == 1_000_000


def test_the_clock_stops_a_loop_and_nobody_knows_the_fuel(wasm: Wasm) -> None:
    done = execute(Job(wasm("spin"), limits=Limits(fuel=2**53 - 1, wall_seconds=0.3)))
    assert done.status == LimitHit("wall")
    assert done.fuel_used is None
    assert done.memory_bytes == 65536


def test_a_call_the_engine_cannot_interrupt_ends_with_the_worker(wasm: Wasm) -> None:
    begun = time.monotonic()
    done = execute(Job(wasm("sleep"), limits=Limits(wall_seconds=0.3)))
    assert done.status == LimitHit("wall")
    assert done.fuel_used is None
    assert done.memory_bytes == 65536
    assert time.monotonic() - begun < 60  # it asked for an hour


def test_memory_is_refused_at_the_limit(wasm: Wasm) -> None:
    done = execute(Job(wasm("hog"), limits=Limits(memory_bytes=64 * MIB)))
    assert done.status == Exited(4)
    assert done.memory_bytes == 64 * MIB


def test_a_module_that_starts_beyond_its_memory_never_starts(wasm: Wasm) -> None:
    done = execute(Job(wasm("huge"), limits=Limits(memory_bytes=64 * MIB)))
    assert done.status == LimitHit("memory")


def test_output_is_cut_at_the_limit_to_the_byte(wasm: Wasm) -> None:
    done = execute(Job(wasm("flood"), limits=Limits(output_bytes=100_001)))
    assert done.status == LimitHit("output")
    # The worker itself has stopped it: of one that is killed, the memory is not known.
    assert done.memory_bytes is not None
    assert done.stdout == b"x" * 100_001


def test_output_of_exactly_the_limit_is_fine(wasm: Wasm) -> None:
    done = execute(Job(wasm("hello"), stdin=b"abc", limits=Limits(output_bytes=3)))
    assert (done.status, done.stdout) == (Exited(0), b"cba")


def test_endless_recursion_is_a_trap(wasm: Wasm) -> None:
    assert execute(Job(wasm("overflow"))).status == Trapped("stack overflow")


@pytest.mark.parametrize(
    "module",
    [b"", b"not wasm", b"\0asm\x01\0\0\0", b"\0asm\x01\0\0\0\xff"],
    ids=["empty", "text", "no _start", "garbage"],
)
def test_what_is_no_command_is_rejected(module: bytes) -> None:
    done = execute(Job(module))
    assert isinstance(done.status, Rejected)
    assert done.status.reason


def test_an_unknown_import_is_named(wasm: Wasm) -> None:
    status = execute(Job(wasm("beyond"))).status
    assert isinstance(status, Rejected)
    assert "host::secret" in status.reason


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job(b"x" * 11, limits=Limits(module_bytes=10)), "module has 11 bytes; the limit is 10"),
        (Job(b"", stdin=b"x" * 11, limits=Limits(stdin_bytes=10)), "stdin has 11 bytes; the limit is 10"),
        (Job(b"", args=["a"] * 2000), "2001 words"),
        (Job(b"", args=["a" * 200_000]), "200006 bytes"),
        (Job(b"", args=["a\0b"]), "NUL"),
        (Job(b"", env={"A=B": "c"}), "'='"),
        (Job(b"", args=["\udc80"]), "UTF-8"),
    ],
)
def test_what_is_beyond_the_limits_is_refused_before_it_runs(job: Job, words: str) -> None:
    with pytest.raises(JobRefusedError, match=words):
        execute(job)


def test_a_worker_killed_from_outside_is_reported_as_that(wasm: Wasm) -> None:
    reader, writer = os.pipe()
    with Worker() as worker:
        pid = worker.pid
        child = os.fork()
        if child == 0:
            os.read(reader, 1)
            time.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        os.write(writer, b"x")
        done = worker.run(Job(wasm("sleep")))
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    assert isinstance(done.status, Killed)
    assert done.status.signal == signal.SIGKILL
    assert done.status.reason == "another process ended it, or the kernel did because memory ran out"


def test_no_process_and_no_descriptor_is_left_behind(wasm: Wasm) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for name in ("hello", "flood", "overflow"):
        execute(Job(wasm(name), limits=Limits(output_bytes=10)))
    with Worker():
        pass
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_caller_that_ignores_the_end_of_children_gets_its_result(wasm: Wasm) -> None:
    # As some service managers do; exec hands it on.
    code = """
import signal, sys
from phase.jobs.runner import Job, Worker, execute
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print(execute(Job(sys.stdin.buffer.read(), stdin=b"ab")).stdout)
Worker().close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=wasm("hello"), capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"b'ba'\n"


def test_a_worker_without_threads_says_so(wasm: Wasm) -> None:
    # A limit of the system's counts every process of a user, so the failure is made inside the worker.
    code = '''
import sys
from phase.jobs import runner
runner._BOOTSTRAP = """
import sys
sys.path.append(sys.argv.pop())
from phase.jobs import worker
def none(*_): raise RuntimeError("no thread")
lock = worker._thread.allocate_lock
worker._thread = type("Threads", (), {"allocate_lock": lock, "start_new_thread": none})
worker.main()
"""
from phase.jobs.runner import Job, execute
from phase.jobs.status import explain
print(explain(execute(Job(sys.stdin.buffer.read())).status))
'''
    done = subprocess.run(
        [sys.executable, "-c", code], input=wasm("hello"), capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"not finished: its worker ended without a result: RuntimeError: no thread\n"


def test_the_worker_finds_a_shared_libpython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/somewhere/lib")
    with Worker() as worker:
        worker.wait_ready()  # before that the kernel may not have its environment in place
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    assert b"LD_LIBRARY_PATH=/opt/somewhere/lib" in environment


def test_the_worker_inherits_no_descriptor_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    with Worker() as worker:
        worker.wait_ready()
        # Root, because the worker may not be looked at by others of its own user.
        descriptors = sorted(map(int, os.listdir(f"/proc/{worker.pid}/fd"))) if os.geteuid() == 0 else None
        with open(f"/proc/{worker.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if os.geteuid() == 0:
            with open(f"/proc/{worker.pid}/environ", "rb") as environ:
                assert b"SECRET" not in environ.read()
    os.close(leaked)
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        # Six pipes, and its own /proc/self/statm.
        assert descriptors == [0, 1, 2, 3, 4, 5, 6]
        assert status["Uid"].split() == [str(OWN + worker.pid)] * 4
        assert int(status["CapEff"], 16) == 0


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (b"flags\t\t: fpu sse sse2 pni cx16 syscall", True),  # qemu64
        (b"flags\t\t: fpu sse2 ssse3 sse4_1 sse4_2", False),
        (b"flags\t\t: fpu sse4_1x xsse4_1", True),
        (b"Features\t: fp asimd", False),
        (b"", False),
    ],
)
@pytest.mark.skipif(location.machine() != "x86_64", reason="arm64's engine runs on every arm64 processor")
def test_old_processors_are_refused_by_what_they_lack(tmp_path: Path, flags: bytes, refused: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_bytes(b"processor\t: 0\n" + flags + b"\nbugs\t: sse4_1\n")
    if not refused:
        location.check_processor(str(cpuinfo))
        return
    with pytest.raises(UnsuitableProcessorError, match=r"no SSE4\.1"):
        location.check_processor(str(cpuinfo))


def test_old_processors_are_asked_before_a_worker_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def old() -> None:
        raise UnsuitableProcessorError("it is old")

    location.check_processor()
    location.check_processor("/nonexistent")
    monkeypatch.setattr(location, "check_processor", old)
    with pytest.raises(UnsuitableProcessorError):
        Worker()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_missing_engine_is_named() -> None:
    with pytest.raises(EngineError, match="no wasmtime for"):
        location.engine_library(["/nonexistent"])


def test_another_version_of_the_engine_is_refused(tmp_path: object) -> None:
    directory = os.path.join(str(tmp_path), "wasmtime", f"linux-{location.machine()}")
    os.makedirs(directory)
    with open(os.path.join(directory, "_libwasmtime.so"), "wb"):
        pass
    with pytest.raises(EngineError, match=f"not version {location.VERSION}"):
        location.engine_library([str(tmp_path)])


def test_a_worker_that_cannot_load_its_engine_says_why(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = os.path.join(str(tmp_path), "broken.so")
    with open(broken, "wb") as file:
        file.write(b"not a library")
    monkeypatch.setattr(location, "engine_library", lambda: broken)
    with pytest.raises(EngineError, match=r"did not load its engine: .*broken\.so"):
        execute(Job(b""))


def test_the_parent_imports_neither_engine_nor_asyncio() -> None:
    code = (
        "import sys, phase.jobs.signed; from phase.jobs.runner import Job, execute; execute(Job(b''));"
        "bad = {'wasmtime', 'asyncio', 'subprocess', 'click'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_worker_imports_little() -> None:
    """Each job waits for it: `typing` alone, with what it needs, was a tenth of a small job's time."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(location.__file__)))
    code = f"import sys; sys.path.append({package!r}); import phase.jobs.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & {"typing", "re", "enum", "contextlib", "functools", "asyncio"} == set()


def test_a_worker_without_descriptors_left_is_refused_and_leaves_none_open() -> None:
    code = """
import os, resource
from phase.jobs.errors import EngineError
from phase.jobs.runner import Worker
before = os.listdir("/proc/self/fd")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + 7,) * 2)
try:
    Worker()
except EngineError as error:
    print(error)
print(os.listdir("/proc/self/fd") == before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "cannot start a worker process: Too many open files\nTrue\n"
