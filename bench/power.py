"""Machines whose power goes at random moments: QEMU is killed, again and again, on one disk.

    python -m bench.power [CUTS] [--kind fetch|publish|refresh] [--arch ARCH] [--seed N]

fetch: a seed, while it keeps what it fetches. After each cut the file system on the disk is checked the
way the kernel would at the next mount, the journal replayed, on a copy. In the end the machine is left
alone and must boot. publish: a system that runs `phase release add` and `refresh` in turn. After each cut
it is booted again; the repository must verify as the old one or the new one, what had been reported done
must be there, and the command, run again, must finish.

Prints where each cut came and what was there. A damaged file system, a floor that is lost or goes back, a
repository that does not verify or an end that does not come ends it with 1.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import _publishing
from lab.net.faults import Faults
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.topology import Lab
from phase.trust import TrustError
from phase.trust import floor as floors
from scenarios.images import ARCHES, CHANNEL, Release
from scenarios.loop import Loop

#: Seconds of a fetch that nothing disturbs: long enough to be cut at any point of it.
_FETCH = 12.0
#: The floor is on the disk before any of these is told of.
_AFTER_TRUST = ("trust", "fetch", "verify", "load", "handoff")


def measure(arch: str, cuts: int, seed: int) -> bool:
    """Cut the power so often; returns whether all was well."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        work = Path(directory)
        release = Release.publish(work / "repository", arches=(arch,))
        loop = Loop(lab, Record({}), release, arch, work)
        loop.serve(staged=True)
        image = work / "cache.ext4"
        image.touch()
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "phase-cache", image, "128M"], check=True)
        manifest = release.repository.manifest(CHANNEL, arch)
        size = sum(artifact.length for artifact in manifest.artifacts.values())
        client = loop.boot_vm(disks=(Disk(image, access="read-write"),))
        floor = floors.Floor()
        for cut in range(cuts):
            if cut:
                client.start()
            loop.lan.link(client).to_machine = Faults(rate=size / _FETCH)
            client.wait_mark("discover", timeout=120)
            time.sleep(chance.uniform(0, _FETCH * 0.6))
            client.stop()
            where = client.marks[-1].step
            sound, held = _look(image, work / "copy", release.publisher)
            told = f"floor {held.timestamp}" if held.timestamp else "no floor yet"
            print(f"{arch} fetch cut {cut + 1} after {where}: {sound}, {told}", flush=True)
            if sound != "sound":
                return False
            # By then it was kept; and what was kept once stays.
            kept = where in _AFTER_TRUST and not held.timestamp
            if kept or (held.root, held.timestamp, held.snapshot) < (
                floor.root,
                floor.timestamp,
                floor.snapshot,
            ):
                print(f"{arch}: the floor is lost; before the cut it was {floor}")
                return False
            floor = held
            if where == "handoff":
                # All is kept: begin again.
                subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "phase-cache", image], check=True)
                floor = floors.Floor()
        loop.lan.link(client).to_machine = Faults()
        client.start()
        client.wait_mark("job", timeout=180)
        fetched = next(mark for mark in client.marks if mark.step == "fetch")
        print(f"{arch}: {cuts} cuts, then it boots; the disk had {fetched.facts['kept']} of {size} bytes")
    return True


def _look(image: Path, copy: Path, publisher: str) -> tuple[str, floors.Floor]:
    """What a mount after the cut would find, without touching the disk itself."""
    shutil.copyfile(image, copy)
    # 0: nothing to do, 1: the journal was replayed, or a leak closed, as at every mount after a cut.
    checked = subprocess.run(["e2fsck", "-fy", copy], capture_output=True, text=True, check=False)
    again = subprocess.run(["e2fsck", "-fn", copy], capture_output=True, text=True, check=False)
    if checked.returncode not in (0, 1) or again.returncode != 0:
        return f"damaged: {checked.stdout[-500:]}", floors.Floor()
    read = subprocess.run(
        ["debugfs", "-R", f"cat {floors.name_of(publisher)}", copy], capture_output=True, check=False
    )
    if not read.stdout:
        return "sound", floors.Floor()
    try:
        return "sound", floors.parse(read.stdout, "floor.json")
    except TrustError as error:
        return f"damaged: {error}", floors.Floor()


def publishes(arch: str, cuts: int, seed: int, kinds: tuple[str, ...]) -> bool:
    """Cut the power of a machine that publishes so often, of each kind; returns whether all was well."""
    with tempfile.TemporaryDirectory() as directory, Lab() as lab:
        work = Path(directory)
        release = Release.publish(work / "repository", arches=(arch,))
        return _publishing.cuts(lab, release, arch, work, cuts, kinds, random.Random(seed))  # noqa: S311


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.power")
    parser.add_argument("cuts", type=int, nargs="?", default=50, help="of each kind")
    parser.add_argument(
        "--kind", action="append", choices=("fetch", *_publishing.KINDS), help="all if not given"
    )
    parser.add_argument("--arch", action="append", choices=ARCHES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kinds = arguments.kind or ["fetch", *_publishing.KINDS]
    publishing = tuple(kind for kind in _publishing.KINDS if kind in kinds)
    well = []
    for arch in arguments.arch or ARCHES[:1]:
        if "fetch" in kinds:
            well.append(measure(arch, arguments.cuts, arguments.seed))
        if publishing:
            well.append(publishes(arch, arguments.cuts, arguments.seed, publishing))
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
