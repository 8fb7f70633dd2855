"""More workers against one: the same scenarios, how long they take, how busy the host's processors are.

    python -m bench.leases [--arch ARCH] [SCENARIO ...]

Runs what `tox -e lab-x86_64` runs, with five workers as it does, with two and with one, images and stages
made before. Prints the ratios of the times, the share of the processors' time that was used, and the least
memory that was free. Everything on the host counts as use, so run it alone; what the scenarios
themselves used is said beside it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

#: At least: one worker's time to two workers', the busy share with five, and MiB that stay available.
GAIN, BUSY, FREE = 1.3, 0.85, 512
_USUAL = ("scenarios/test_loop.py", "scenarios/test_generations.py", "scenarios/test_providers.py",
          "scenarios/test_cache.py", "scenarios/test_lab_vm.py", "scenarios/test_lab_deaths.py")  # fmt: skip
_POLL = 0.5


class Run(NamedTuple):
    """What one run of the scenarios took.

    Attributes:
        seconds: from the start to the end of the test runner.
        busy: share of all processors' time that was used on the host.
        own: share that the runner and its machines used.
        free: the least MiB that were available.
    """

    seconds: float
    busy: float
    own: float
    free: float


def run(workers: int, arch: str, scenarios: list[str]) -> Run:
    """Run scenarios with so many workers.

    Raises:
        SystemExit: one failed: then the times say nothing.
    """
    least = [float("inf")]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL):
            least[0] = min(least[0], _free())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as out:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--override-ini=testpaths=scenarios", "--timeout=900"),
            *(f"--lab-arch={arch}", f"--lab-out={out}", *scenarios),
            *(["-n", str(workers), "--dist=loadgroup"] if workers > 1 else []),
        ]
        before, begun, spent = _ticks(), time.monotonic(), _spent()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds = time.monotonic() - begun
        idle, all_ = (after - first for after, first in zip(_ticks(), before, strict=True))
        own = (_spent() - spent) / seconds / (os.cpu_count() or 1)
        ended.set()
        watcher.join()
    if done.returncode:
        raise SystemExit(done.stdout[-5000:])
    found = Run(seconds, 1 - idle / all_, own, least[0])
    print(
        f"workers: {workers}, {seconds:.0f} s, processors {found.busy:.0%} busy ({own:.0%} by the run), "
        f"at least {found.free:.0f} MiB free",
        flush=True,
    )
    return found


def _ticks() -> tuple[int, int]:
    """Idle time and all time of the processors so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _free() -> float:
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    return int(line.split()[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.leases")
    parser.add_argument("--arch", default="x86_64")
    parser.add_argument("scenarios", nargs="*", default=list(_USUAL))
    arguments = parser.parse_args()
    five, two, one = (run(workers, arguments.arch, arguments.scenarios) for workers in (5, 2, 1))
    gain = one.seconds / two.seconds
    most = one.seconds / five.seconds
    print(
        f"{arguments.arch}: two workers are {gain:.2f} times as fast as one (budget {GAIN}), "
        f"five {most:.2f} times; processors {five.busy:.0%} busy with five (budget {BUSY:.0%})"
    )
    enough = min(each.free for each in (five, two, one)) > FREE
    return 0 if gain >= GAIN and five.busy >= BUSY and enough else 1


if __name__ == "__main__":
    sys.exit(main())
