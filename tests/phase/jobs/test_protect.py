"""What a worker gives up and what it may never have, also where it cannot change users."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Job, Worker
from phase.jobs.status import LimitHit

Wasm = Callable[[str], bytes]
PROJECT = Path(__file__).parents[3]
#: Runs a module that it reads; prints what it printed, and what its worker could not have.
_RUN = """
import sys
from phase.jobs import Job, execute
done = execute(Job(sys.stdin.buffer.read()[:-5], stdin=b"Hello"))
print(done.stdout, *done.missing, sep="\\n")
"""


#: Starts a command under a filter that refuses any further one, as some containers have.
_REFUSING = """
import ctypes, os, struct, sys
number = 317 if os.uname().machine == "x86_64" else 277
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
packed = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(packed))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def _run_as(words: list[str], module: bytes) -> tuple[str, list[str]]:
    done = subprocess.run(
        [*words, sys.executable, "-c", _RUN],
        input=module + b"     ",
        capture_output=True,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed, *missing = done.stdout.decode().splitlines()
    return printed, missing


def test_rootless_containers_run_jobs_and_say_what_is_missing(wasm: Wasm) -> None:
    printed, missing = _run_as(["unshare", "-r"], wasm("hello"))
    assert printed == "b'olleH'"
    assert [line.partition(":")[0] for line in missing] == [
        "it keeps its supplementary groups",
        "it keeps the group of root",
        "it keeps the user root",
    ]


def test_rootless_containers_without_a_root_of_their_own_miss_nothing(wasm: Wasm) -> None:
    assert _run_as(["unshare", "-U"], wasm("hello")) == ("b'olleH'", [])


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        ("", ["it keeps the user root"]),
        (",+setuid", ["it keeps the user root"]),
        (
            ",+kill",
            ["it keeps its supplementary groups", "it keeps the group of root", "it keeps the user root"],
        ),
        (",+kill,+setuid", ["it keeps its supplementary groups", "it keeps the group of root"]),
        (",+kill,+setuid,+setgid", []),
    ],
)
def test_rootless_containers_with_some_capabilities_give_up_what_they_can(
    wasm: Wasm, kept: str, missing: list[str]
) -> None:
    words = ["setpriv", f"--bounding-set=-all{kept}"]
    if os.geteuid() != 0:
        words = ["unshare", "-r", *words]
        missing = missing or ["it keeps its supplementary groups"]
    printed, said = _run_as(words, wasm("hello"))
    assert printed == "b'olleH'"
    if os.geteuid() == 0:
        assert [line.partition(":")[0] for line in said] == missing
    else:
        assert said


def _phase_run(words: list[str], module: Path, *, cage: str) -> tuple[int, str]:
    done = subprocess.run(
        [*words, sys.executable, "-m", "phase", "run", "--cage", cage, str(module)],
        input="Hello", capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            [sys.executable, "-c", _REFUSING],
            "the kernel does not filter its system calls: Operation not perm",
        ),
        (["unshare", "-r"], "it keeps the group of root: Invalid argument"),
    ],
)
def test_what_the_kernel_refuses_is_named_and_the_policy_decides(
    wasm: Wasm, tmp_path: Path, words: list[str], what: str
) -> None:
    module = tmp_path / "hello.wasm"
    module.write_bytes(wasm("hello"))
    code, said = _phase_run(words, module, cage="best")
    assert (code, f"ran with less protection: {what}" in said) == (0, True)
    code, said = _phase_run(words, module, cage="whole")
    assert (code, "the worker's cage is not whole" in said, what in said) == (128, True, True)
    assert "--cage best" in said


def test_a_cage_that_is_whole_runs_under_either_policy(wasm: Wasm, tmp_path: Path) -> None:
    module = tmp_path / "hello.wasm"
    module.write_bytes(wasm("hello"))
    for cage in ("best", "whole"):
        assert _phase_run([], module, cage=cage) == (0, "")


def test_a_worker_that_keeps_root_keeps_no_capability(wasm: Wasm) -> None:
    code = """
import sys
from phase.jobs.runner import Worker
with Worker() as worker:
    worker.wait_ready()
    lines = open(f"/proc/{worker.pid}/status").readlines()
    print(*(line for line in lines if line.startswith(("Cap", "NoNew"))), sep="")
"""
    done = subprocess.run(
        ["unshare", "-r", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
        timeout=60,
        check=True,
    )
    found = dict(line.split(":\t") for line in done.stdout.splitlines() if line)
    assert found.pop("NoNewPrivs") == "1"
    assert {name: int(value, 16) for name, value in found.items()} == dict.fromkeys(found, 0)
    assert {"CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"} == set(found)


#: As a user who is not root, and who finds Python in a directory of root.
_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
_USER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.mark.parametrize("words", [[], ["unshare", "-r"], _USER])
def test_workers_of_a_pool_have_no_capability_either(words: list[str]) -> None:
    """Their zygote gives up the bounding set for all of them, also where it makes a user namespace."""
    if words is _USER and os.geteuid() != 0:
        words = []
    code = """
from phase.jobs.pool import Pool
with Pool(2) as pool:
    for _ in range(2):
        with pool._take() as worker:
            worker.wait_ready()
            lines = open(f"/proc/{worker.pid}/status").readlines()
            print(*(line for line in lines if line.startswith("Cap")), sep="")
"""
    done = subprocess.run(
        [*words, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]},
        timeout=60,
        check=True,
    )
    found = [line.split(":\t") for line in done.stdout.splitlines() if line]
    assert len(found) == 10
    assert {int(value, 16) for _, value in found} == {0}


def _limits_while_running(module: bytes, limits: Limits) -> dict[str, tuple[str, str]]:
    """The kernel's table of a worker's limits, soft and hard, read while its job sleeps."""
    text = ""
    over = threading.Event()

    def watch(pid: int) -> None:
        nonlocal text
        while not over.wait(0.01):
            text = Path(f"/proc/{pid}/limits").read_text()

    with Worker() as worker:
        worker.wait_ready()
        watcher = threading.Thread(target=watch, args=(worker.pid,))
        watcher.start()
        # Stopped by the worker's own clock: until a moment before that, its job sleeps.
        ender = threading.Timer(limits.wall_seconds - 0.2, over.set)
        ender.start()
        done = worker.run(Job(module, limits=limits))
        watcher.join()
        ender.join()
    assert done.status == LimitHit("wall")
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in text.splitlines()[1:]}


def test_every_process_limit_of_a_running_worker(wasm: Wasm) -> None:
    found = _limits_while_running(wasm("sleep"), Limits(wall_seconds=1.5, memory_bytes=8 * MIB))
    assert found["Max file size"] == ("0", "0")
    assert found["Max core file size"] == ("0", "0")
    assert found["Max open files"] == ("32", "32")
    soft, hard = map(int, found["Max cpu time"])
    # What the worker has used already counts.
    assert 4 <= soft == hard <= 10
    soft, hard = map(int, found["Max data size"])
    assert 8 * MIB < soft == hard < 400 * MIB
    if os.geteuid() == 0:
        assert found["Max processes"] == ("32", "32")


def test_the_process_limit_follows_the_jobs_memory(wasm: Wasm) -> None:
    small, large = (
        int(
            _limits_while_running(wasm("sleep"), Limits(wall_seconds=1.0, memory_bytes=size))[
                "Max data size"
            ][1]
        )
        for size in (8 * MIB, 2048 * MIB)
    )
    assert 1900 * MIB < large - small < 2180 * MIB


def test_a_stricter_limit_of_the_caller_stays(wasm: Wasm) -> None:
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (25, 25))
resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
from phase.jobs import Job, execute
print(execute(Job(sys.stdin.buffer.read(), stdin=b"Hello")).stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=wasm("hello"),
        capture_output=True,
        cwd=PROJECT,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"b'olleH'\n"
