"""A scenario of two cloned machines over a bad cable, again and again, in one process.

    python -m bench.soak [--arch ARCH] [--times N]

Each time: a new lab with a seed of its own, so that other frames are lost; both machines from their
stage, 5 % loss and 20 ms delay each way, a file over TCP that must arrive whole, everything taken down.
Prints how long one takes and what the process has in the end that it did not have after the first ten.
A failed repetition, whose seed is said, a machine, file descriptor, thread or file left behind, or
memory that grows ends it with 1.
"""

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from lab.net.faults import Faults
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest
from scenarios.images import ARCHES

BAD = Faults(loss=0.05, delay=0.02)
_FILE = 65_536
#: Repetitions after which everything that is made once has been made.
_WARM = 10
#: Bytes the process may have grown by since then: what the allocator keeps to itself.
_GROWTH = 4 << 20


class Held(NamedTuple):
    """What this process holds."""

    children: int
    descriptors: int
    threads: int
    files: int
    memory: int

    @classmethod
    def now(cls) -> "Held":
        """Count."""
        own = psutil.Process()
        files = sum(1 for _ in Path(tempfile.gettempdir()).glob(f"lab-{os.getpid()}-*"))
        children = len(own.children(recursive=True))
        return cls(children, own.num_fds(), threading.active_count(), files, own.memory_info().rss)


def serving(server: VM, client: VM) -> None:
    """The stage: both are up, one serves what the other has yet to ask for."""
    for vm in (server, client):
        vm.wait_mark("init")
    server.shell().succeed(f"head -c {_FILE} /dev/urandom >/tmp/file; httpd -h /tmp")


def once(arch: str, kernel: Path, initrd: Path, seed: int) -> int:
    """One repetition; returns how many frames the cable lost."""
    with Lab(seed=seed) as lab:
        lan = lab.segment("lan")
        server, client = (
            lab.vm(
                name,
                arch=arch,
                memory=128,
                kernel=kernel,
                initrd=initrd,
                append="quiet panic=-1",
                segments=(lan,),
            )
            for name in ("server", "client")
        )
        lab.stage("soak", server, client, until=serving).start()
        link = lan.link(client)
        link.to_machine = link.from_machine = BAD
        shell = client.shell()
        came = shell.succeed(f"wget -q -O - http://{lab.address(server, lan)}/file | sha256sum", timeout=120)
        lost = link.inward.lost["loss"] + link.outward.lost["loss"]
        link.to_machine = link.from_machine = Faults()
        assert came.split()[0] == server.shell().succeed("sha256sum </tmp/file").split()[0]
        assert came.split()[0] != hashlib.sha256(b"").hexdigest()
        return lost


def measure(arch: str, times: int) -> bool:
    """Repeat; returns whether nothing went wrong, and nothing was left."""
    with tempfile.TemporaryDirectory() as directory:
        kernel, initrd = lab_guest.build(arch, Path(directory))
        seconds: list[float] = []
        lost = 0
        warm = Held.now()
        for number in range(times):
            begun = time.monotonic()
            try:
                lost += once(arch, kernel, initrd, number)
            except Exception as error:
                print(f"{arch}: the repetition with seed {number} failed: {error}", flush=True)
                return False
            seconds.append(time.monotonic() - begun)
            if number + 1 == min(_WARM, times):
                warm = Held.now()
    end = Held.now()
    same = end[:4] == warm[:4] and end.children == end.files == 0
    print(
        f"{arch}: {times} of {times} passed, {statistics.median(seconds):.2f} s each (at most "
        f"{max(seconds):.2f} s), {lost} frames lost on the way; left: {end.children} processes, "
        f"{end.files} directories, "
        f"{end.descriptors - warm.descriptors:+d} descriptors, {end.threads - warm.threads:+d} threads, "
        f"{(end.memory - warm.memory) / 1024:+.0f} KiB of {end.memory >> 20} MiB",
        flush=True,
    )
    return same and lost > 0 and end.memory - warm.memory < _GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--arch", action="append", choices=ARCHES)
    parser.add_argument("--times", type=int, default=100)
    arguments = parser.parse_args()
    well = [measure(arch, arguments.times) for arch in arguments.arch or ARCHES]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
