"""A seed whose power goes at random moments of its fetch, again and again, on one disk.

    python -m bench.power [--arch ARCH] [--cuts N] [--seed N]

After each cut the file system on the disk is checked the way the kernel would at the next mount, the
journal replayed, on a copy. In the end the machine is left alone and must boot. Prints what the disk had
kept at each start; a floor lost on the way, a damaged file system or a machine that does not boot ends it
with 1.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.net.faults import Faults
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.topology import Lab
from scenarios.images import ARCHES, CHANNEL, Release
from scenarios.loop import Loop

#: Seconds of a fetch that nothing disturbs: long enough to be cut at any point of it.
_FETCH = 12.0


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
        for cut in range(cuts):
            if cut:
                client.start()
            loop.lan.link(client).to_machine = Faults(rate=size / _FETCH)
            client.wait_mark("discover", timeout=120)
            time.sleep(chance.uniform(0, _FETCH * 0.6))
            client.stop()
            where = client.marks[-1].step
            sound, held = _look(image, work / "copy")
            print(f"{arch} cut {cut + 1} after {where}: {sound}, {held}", flush=True)
            if sound != "sound":
                return False
            if where == "handoff":
                # All is kept: begin again.
                subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "phase-cache", image], check=True)
        loop.lan.link(client).to_machine = Faults()
        client.start()
        client.wait_mark("job", timeout=180)
        fetched = next(mark for mark in client.marks if mark.step == "fetch")
        print(f"{arch}: {cuts} cuts, then it boots; the disk had {fetched.facts['kept']} of {size} bytes")
    return True


def _look(image: Path, copy: Path) -> tuple[str, str]:
    """What a mount after the cut would find, without touching the disk itself."""
    shutil.copyfile(image, copy)
    # 0: nothing to do, 1: the journal was replayed, or a leak closed, as at every mount after a cut.
    checked = subprocess.run(["e2fsck", "-fy", copy], capture_output=True, text=True, check=False)
    again = subprocess.run(["e2fsck", "-fn", copy], capture_output=True, text=True, check=False)
    if checked.returncode not in (0, 1) or again.returncode != 0:
        return f"damaged: {checked.stdout[-500:]}", ""
    floor = subprocess.run(
        ["debugfs", "-R", "cat floor.json", copy], capture_output=True, text=True, check=False
    )
    return "sound", "floor kept" if '"timestamp"' in floor.stdout else "no floor yet"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.power")
    parser.add_argument("--arch", action="append", choices=ARCHES)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    well = [measure(arch, arguments.cuts, arguments.seed) for arch in arguments.arch or ARCHES[:1]]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
