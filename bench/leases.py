"""Two workers against one over the lab's own scenarios, and how busy the processors are meanwhile.

    python -m bench.leases [--workers N] [PYTEST ARGUMENTS...]

Everything on the machine counts as busy, so run it alone. Wanted: 1.3 times as fast, processors 85 % busy.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEEDUP, BUSY = 1.3, 0.85
SCENARIOS = ("scenarios/test_lab_infra.py", "scenarios/test_lab_vm.py")
ROOT = Path(__file__).parents[1]


def _ticks() -> tuple[int, int]:
    """Busy and all ticks of every processor since the host started (proc(5))."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _run(workers: int, arguments: list[str]) -> tuple[float, float]:
    """Seconds that the scenarios take, and the share of the processors that was busy."""
    with tempfile.TemporaryDirectory() as out:
        spread = ["-n", str(workers), "--dist=loadgroup"]
        argv = [sys.executable, "-m", "pytest", "-q", "--override-ini=testpaths=scenarios", *spread]
        began, (busy, total) = time.monotonic(), _ticks()
        subprocess.run([*argv, f"--lab-out={out}", *arguments], cwd=ROOT, env=os.environ, check=True)
        took, (busy_after, total_after) = time.monotonic() - began, _ticks()
    return took, (busy_after - busy) / (total_after - total)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.leases")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options, chosen = parser.parse_known_args()
    arguments = chosen or [*SCENARIOS, "--lab-arch=x86_64"]
    one, alone = _run(1, arguments)
    many, together = _run(options.workers, arguments)
    print(f"one worker {one:.1f} s ({alone:.0%} busy), {options.workers} {many:.1f} s ({together:.0%} busy)")
    print(f"ratio {one / many:.2f} (wanted {SPEEDUP}), busy {together:.0%} (wanted {BUSY:.0%})")
    return 0 if one / many >= SPEEDUP and together >= BUSY else 1


if __name__ == "__main__":
    sys.exit(main())
