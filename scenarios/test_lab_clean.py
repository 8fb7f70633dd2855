"""Nothing of a lab outlives the process that made it, however that process ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.topology import Lab, sweep
from scenarios import lab_guest

ROOT = Path(__file__).parent.parent
SCENARIO = """
import sys, time
from pathlib import Path

def test_runs(lab):
    lan = lab.segment("lan")
    words = dict(arch={arch!r}, kernel=Path({kernel!r}), initrd=Path({initrd!r}), memory=256)
    words["segments"] = (lan,)
    machines = [lab.vm(name, **words) for name in ("one", "two")]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.wait_mark("network")
    Path("pids").write_text(" ".join(str(machine.pid) for machine in machines))
    {then}
"""


def heed_ctrl_c() -> None:
    """Take Ctrl-C, also where this run does not: a shell's background jobs inherit that they ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Inner:
    """A pytest of its own, with two machines on a segment."""

    def __init__(self, arch: str, directory: Path, base: Path) -> None:
        self.arch = arch
        self.directory = directory
        self.base = base
        self.kernel, self.initrd = lab_guest.build(arch, directory)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, then: str, *options: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        """Start it; returns when its machines are up, with their processes' numbers."""
        source = SCENARIO.format(arch=self.arch, kernel=str(self.kernel), initrd=str(self.initrd), then=then)
        (self.directory / "test_inner.py").write_text(source)
        (self.directory / "pytest.ini").write_text("[pytest]\n")
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "lab.plugin", "-p", "no:cacheprovider", *options]
        environment = os.environ | {"TMPDIR": str(self.base), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*argv, "test_inner.py"],
            cwd=self.directory,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
        pids = self.directory / "pids"
        while not (pids.exists() and pids.read_text()):
            assert self.process.poll() is None, "it ended before its machines were up"
            time.sleep(0.05)
        return self.process, [int(word) for word in pids.read_text().split()]


@pytest.fixture
def inner(arch: str, tmp_path: Path) -> Iterator[Inner]:
    with tempfile.TemporaryDirectory(prefix="t-") as base:
        made = Inner(arch, tmp_path, Path(base))
        yield made
        if made.process is not None:
            made.process.kill()
            made.process.wait()


def wait_gone(pids: list[int]) -> None:
    # A worker of xdist gives its scenario fifteen seconds after the runner is gone.
    deadline = time.monotonic() + 40
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("then", "status"),
    [("pass", 0), ("assert False", 1), ("machines[0].stop(); machines[1].wait_mark('never', timeout=1)", 1)],
    ids=["passes", "fails", "times out"],
)
def test_a_scenario_that_ends(inner: Inner, then: str, status: int) -> None:
    process, pids = inner.start(then)
    assert process.wait(60) == status
    wait_gone(pids)
    assert not leftovers(inner.base)


def test_ctrl_c(inner: Inner) -> None:
    process, pids = inner.start("time.sleep(600)")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    wait_gone(pids)
    assert not leftovers(inner.base)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_runner(inner: Inner, number: signal.Signals) -> None:
    """Its machines go with it; its directory goes when the next lab opens."""
    process, pids = inner.start("time.sleep(600)")
    process.send_signal(number)
    assert process.wait(60) == -number
    wait_gone(pids)
    sweep(inner.base)
    assert not leftovers(inner.base)


def test_ctrl_c_with_workers(inner: Inner) -> None:
    """As a terminal does it: everybody is told."""
    process, pids = inner.start("time.sleep(600)", "-n", "2", "--dist=loadgroup")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 2
    wait_gone(pids)
    wait_swept(inner.base)


def test_a_killed_runner_with_workers(inner: Inner) -> None:
    process, pids = inner.start("time.sleep(600)", "-n", "2", "--dist=loadgroup")
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    wait_gone(pids)
    wait_swept(inner.base)


def test_a_killed_worker(inner: Inner) -> None:
    """The run goes on with another, and says which scenario it was."""
    process, pids = inner.start("time.sleep(600)", "-n", "1", "--max-worker-restart=0")
    worker = psutil.Process(pids[0])
    while worker.parent() != psutil.Process(process.pid):
        worker = worker.parent() or pytest.fail("no machine of this runner's")
    worker.kill()
    assert process.wait(60) == 1
    wait_gone(pids)
    sweep(inner.base)
    assert not leftovers(inner.base)


def wait_swept(base: Path) -> None:
    """Wait until no lab is left; one whose worker had no time to remove it goes when the next lab opens."""
    deadline = time.monotonic() + 40
    while leftovers(base):
        assert time.monotonic() < deadline, leftovers(base)
        sweep(base)
        time.sleep(0.2)


def test_a_lab_leaves_no_thread_or_descriptor(arch: str, tmp_path: Path) -> None:
    """Four labs need no more than one; the loop for QEMU's monitor stays for the process."""
    kernel, initrd = lab_guest.build(arch, tmp_path)

    def once() -> None:
        with Lab() as lab:
            lan = lab.segment("lan")
            vm = lab.vm("one", arch=arch, kernel=kernel, initrd=initrd, memory=256, segments=(lan,))
            vm.start()

    def settled() -> int:
        # A thread that has been joined is the kernel's for a moment longer.
        found = []
        for _ in range(20):
            found.append(len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task")))
            time.sleep(0.05)
        return min(found)

    once()
    first = settled()
    for _ in range(3):
        once()
    assert settled() == first


def leftovers(base: Path) -> list[Path]:
    """What labs have left: pytest's own directories are its business."""
    return list(base.glob("lab-*"))
