"""A clone's first answer against the cold boot to the same stage, in the same run.

    python -m bench.clone [--arch ARCH] [--rounds N]

Two stages: the smallest machine at its shell, and a system that serves a release.
The budget is for the second, which is what scenarios wait for.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest
from scenarios.images import ARCHES, CHANNEL, Release
from scenarios.loop import MEMORY, PORT

RATIO, SECONDS = 20.0, 1.0


def _shell(vm: VM) -> None:
    vm.wait_mark("init")


def _system(vm: VM) -> None:
    vm.wait_mark("system", timeout=120)
    vm.shell().wait_until_succeeds(f"wget -q -O /dev/null http://127.0.0.1:{PORT}/health", timeout=90)


def _measure(what: str, vm: VM, lab: Lab, rounds: int) -> tuple[float, float]:
    until = {"shell": _shell, "system": _system}[what]
    colds = []
    for _ in range(rounds):
        # As it is on any other day: booted, and its shell asked.
        vm.start()
        until(vm)
        vm.shell()
        colds.append(time.monotonic() - vm.power_on)
        vm.stop()
    stage = lab.stage(what, vm, until=until)
    clones = []
    for number in range(rounds + 1):
        begun = time.monotonic()
        clone = stage.clone(f"{what}-{number}")
        clones.append(time.monotonic() - begun)
        clone.stop()
    cold, quick = statistics.median(colds), statistics.median(clones[1:])
    print(
        f"{vm.arch} {what}: cold {cold:.2f} s, clone {quick:.3f} s, {cold / quick:.1f} times faster",
        flush=True,
    )
    return cold / quick, quick


def measure(arch: str, rounds: int) -> bool:
    """Print one architecture's figures; returns whether they keep to the budget."""
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        work = Path(directory)
        lan = lab.segment("lan")
        kernel, initrd = lab_guest.build(arch, work)
        small = lab.vm(
            "small",
            arch=arch,
            memory=128,
            kernel=kernel,
            initrd=initrd,
            append="quiet panic=-1",
            segments=(lan,),
        )
        _measure("shell", small, lab, rounds)
        release = Release.publish(work / "repository", arches=(arch,))
        kernel, initrd, line = release.system(arch, work, f"phase.channel={CHANNEL}", serves=(arch,))
        system = lab.vm(
            "system", arch=arch, memory=MEMORY, kernel=kernel, initrd=initrd, append=line, segments=(lan,)
        )
        ratio, seconds = _measure("system", system, lab, rounds)
    return ratio >= RATIO and seconds < SECONDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.clone")
    parser.add_argument("--arch", action="append", choices=ARCHES)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    kept = [measure(arch, arguments.rounds) for arch in arguments.arch or ARCHES]
    print(f"budget: the system's clone {RATIO:.0f} times faster, under {SECONDS:.0f} s")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
