"""What the kernel holds a worker process to, read from the kernel while a job runs."""

import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

from phase.jobs.limits import MIB, Limits
from phase.jobs.protect import OWN
from phase.jobs.runner import Job, Worker

Wat = Callable[[str], bytes]
_MEMORY = 2048 * MIB
FOR_EVER = '(memory (export "memory") 1) (func (export "_start") (loop $again (br $again)))'


def _limits(pid: int) -> dict[str, str]:
    """The soft limits, by the kernel's names."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:47].strip() for line in lines}


def _while_it_runs(wat: Wat) -> dict[str, str]:
    """The limits of a worker whose job runs."""
    limits = Limits(wall_seconds=30, memory_bytes=_MEMORY)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    # Where only root may allow core files, there may be none at all.
    most = resource.RLIM_INFINITY if os.geteuid() == 0 else before[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    with Worker() as worker:
        job = threading.Thread(target=worker.run, args=(Job(wat(FOR_EVER), limits=limits),))
        job.start()
        until = time.monotonic() + 20
        try:
            # The last limit of all is the job's memory: more than the compiler gets for so small a module.
            while (found := _limits(worker.pid))["Max data size"] == "unlimited" or (
                int(found["Max data size"]) < _MEMORY
            ):
                assert time.monotonic() < until, found
                time.sleep(0.01)
            return found
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, before)
            os.kill(worker.pid, 9)
            job.join()


def test_each_limit_of_a_process_is_set(wat: Wat) -> None:
    running = _while_it_runs(wat)
    assert running["Max file size"] == "0"
    assert running["Max core file size"] == "0"
    assert running["Max open files"] == "32"
    # 30 seconds and what it has used, with three to spare.
    assert 33 <= int(running["Max cpu time"]) <= 40
    # The job's memory, what the engine has, and threads' stacks.
    assert _MEMORY < int(running["Max data size"]) < _MEMORY + 512 * MIB
    if os.geteuid() == 0:
        assert running["Max processes"] == "32"


def test_a_job_runs_as_a_user_of_its_own_who_can_gain_nothing(wat: Wat) -> None:
    with Worker() as worker:
        job = threading.Thread(target=worker.run, args=(Job(wat(FOR_EVER), limits=Limits(wall_seconds=30)),))
        job.start()
        until = time.monotonic() + 20
        while _limits(worker.pid)["Max file size"] != "0":
            assert time.monotonic() < until
            time.sleep(0.01)
        lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        os.kill(worker.pid, 9)
        job.join()
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(OWN + worker.pid)}
        assert status["Groups"].strip() == ""
        for kind in ("CapEff", "CapPrm", "CapInh"):
            assert int(status[kind], 16) == 0
