"""The smallest machine the loop works on: `-m` at which a seed still reaches its job.

    python -m bench.memory [--arch ARCH]

Halves the range between too small and enough, in steps of 16 MiB, with a new machine for each try.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from lab.errors import LabError
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import ARCHES, Release
from scenarios.loop import Loop

#: MiB, docs/develop/design.md.
BUDGETS = {"x86_64": 256, "arm64": 320}
_STEP = 16


def smallest(arch: str) -> int:
    """MiB; prints every try."""
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        work = Path(directory)
        loop = Loop(lab, Record({}), Release.publish(work / "r", arches=(arch,)), arch, work)
        loop.serve()
        too_small, enough = 64 // _STEP, 512 // _STEP
        while enough - too_small > 1:
            tried = (too_small + enough) // 2
            client = loop.boot_vm("phase.timeout=30", memory=tried * _STEP, name=f"m{tried * _STEP}")
            try:
                client.wait_mark("job", timeout=90)
            except LabError as error:
                too_small = tried
                print(f"{arch} {tried * _STEP} MiB: {error.what[:150]}", flush=True)
            else:
                enough = tried
                print(f"{arch} {tried * _STEP} MiB: enough", flush=True)
            client.stop()
    return enough * _STEP


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory")
    parser.add_argument("--arch", action="append", choices=ARCHES)
    over = False
    for arch in parser.parse_args().arch or ARCHES:
        found = smallest(arch)
        over |= found > BUDGETS[arch]
        print(f"{arch}: {found} MiB (budget {BUDGETS[arch]})", flush=True)
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
