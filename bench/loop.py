"""The loop, power-on to the job's output, against its floor: `bench/floor.py` on the same machines.

    python -m bench.loop [--arch ARCH] [--rounds N]

One server; then the floor and the loop boot from it by turns. Prints both medians, where the time
goes, and their ratio; the budget is 1.3.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from bench.floor import build
from bench.run import BARE
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import ARCHES, CHANNEL, Release
from scenarios.loop import KERNELS, MEMORY, PORT, Loop

BUDGET = 1.3


def _floor(loop: Loop, url: str, number: int) -> VM:
    manifest = loop.release.repository.manifest(CHANNEL, loop.arch)
    line = f"quiet panic=-1 console={'ttyS0' if loop.arch == 'x86_64' else 'ttyAMA0'},115200"
    initrd = build(loop.arch, loop.work, manifest, url=url, cmdline=line, bare=BARE)
    vm = loop.lab.vm(
        f"floor{number}",
        arch=loop.arch,
        memory=MEMORY,
        kernel=loop.release.blob(manifest.artifacts["kernel"].sha256),
        initrd=initrd,
        append="quiet panic=-1",
        segments=(loop.lan,),
    )
    vm.start()
    return vm


def measure(arch: str, rounds: int) -> float:
    """Print one architecture's figures; returns the ratio."""
    totals: dict[str, list[float]] = {"floor": [], "loop": []}
    shares: dict[str, dict[str, list[float]]] = {"floor": {}, "loop": {}}
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        work = Path(directory)
        release = Release.publish(work / "repository", arches=(arch,))
        loop = Loop(lab, Record({}), release, arch, work)
        server = loop.serve()
        for number in range(rounds):
            for name in ("floor", "loop"):
                url = f"http://{loop.address(server)}:{PORT}"
                vm = _floor(loop, url, number) if name == "floor" else loop.boot_vm(name=f"loop{number}")
                done = vm.wait_mark("job", timeout=180)
                totals[name].append(done.arrived - vm.power_on)
                for phase, seconds in vm.timeline(KERNELS).items():
                    shares[name].setdefault(phase, []).append(seconds)
                vm.stop()
    ratio = statistics.median(totals["loop"]) / statistics.median(totals["floor"])
    for name, found in totals.items():
        parts = ", ".join(f"{phase} {statistics.median(times):.2f}" for phase, times in shares[name].items())
        print(f"{arch} {name}: {statistics.median(found):.2f} s ({parts})")
    print(f"{arch} ratio {ratio:.2f} (budget {BUDGET})", flush=True)
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.loop")
    parser.add_argument("--arch", action="append", choices=ARCHES)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ratios = [measure(arch, arguments.rounds) for arch in arguments.arch or ARCHES]
    return 0 if max(ratios) <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
