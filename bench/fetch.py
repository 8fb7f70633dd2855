"""`phase.fetch` against curl piped to sha256sum and aria2c; three rate-limited providers against one.

    python -m bench.fetch [MEGABYTES]

All read from nginx on loopback into memory, and verify: a seed the chunks, which cover every byte; the
command `phase fetch` the whole, too, which gives the file its name. Whole processes, alternating; medians.

curl and sha256sum are two processes, a seed is one thread. Where others want the processors, two get twice
the share of one, so the ratio of the time that has passed means something on an idle machine only; the
processor time of the readers, which is printed too, means something on a busy one.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from bench import _serving
from phase.release import cut
from phase.release.blobs import hash_artifact

CURL, THREE = 1.0, 2.7
ROUNDS = 5
_CHUNK = 1 << 20
#: Bytes per second of one limited provider.
_RATE = 16_000_000
#: MiB that they share; long enough that starting the program is not what is measured.
_SHARED = 128
_FETCH = """
import json, os, sys, time
from typing import NamedTuple
from phase.fetch import fetch_artifact
class Artifact(NamedTuple):
    name: str; length: int; sha256: str; starts: list; chunks: list
with open(sys.argv[1]) as handle:
    artifact = Artifact(*json.load(handle))
out = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
whole = sys.argv[3] == "whole"
fetch_artifact(artifact, sys.argv[4:], out, deadline=time.monotonic() + 600, whole=whole)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fetch")
    parser.add_argument("megabytes", type=int, nargs="?", default=512)
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory(dir=_serving.memory()) as temporary:
        root = Path(temporary)
        # nginx reads as another user when root starts it.
        root.chmod(0o755)
        whole, limited = _blob(root, megabytes), _blob(root, _SHARED)
        out = str(root / "out")
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(_serving.nginx(root, root / "state"))
            url = f"{server.url}/blobs/sha256/{whole}"
            begun = [sys.executable, "-c", _FETCH]
            aria = ["aria2c", "-q", "-x8", "-s8", "-k1M", "--allow-overwrite=true", "--file-allocation=none"]
            times, spent = _alternate(
                {
                    "curl | sha256sum": lambda: _shell(f"curl -sS --fail {url} | sha256sum", whole),
                    "aria2c -x8": lambda: _run(
                        [*aria, f"--checksum=sha-256={whole}", "-d", str(root), "-o", "aria", url]
                    ),
                    "a seed": lambda: _run([*begun, str(root / f"{whole}.json"), out, "chunks", server.url]),
                    "phase fetch": lambda: _run(
                        [*begun, str(root / f"{whole}.json"), out, "whole", server.url]
                    ),
                },
                ROUNDS,
            )
            for name, seconds in times.items():
                part = spent[name] / spent["curl | sha256sum"]
                print(
                    f"{name}: {seconds:.2f} s, {megabytes / seconds:.0f} MiB/s; "
                    f"{spent[name]:.2f} s of processor time, {part:.2f} of curl | sha256sum"
                )
            print(f"ratio of a seed against curl {times['curl | sha256sum'] / times['a seed']:.2f}")
            ratio = times["curl | sha256sum"] / times["phase fetch"]
            print(f"ratio against curl {ratio:.2f} (budget {CURL})")
            print(f"ratio against aria2c {times['aria2c -x8'] / times['phase fetch']:.2f}")
            slow = [stack.enter_context(_serving.limited(server, _RATE)).url for _ in range(3)]
            wanted = str(root / f"{limited}.json")
            shared, _ = _alternate(
                {
                    "one": lambda: _run([*begun, wanted, out, "whole", slow[0]]),
                    "three": lambda: _run([*begun, wanted, out, "whole", *slow]),
                },
                3,
            )
            gain = shared["one"] / shared["three"]
            one, three = shared["one"], shared["three"]
            print(
                f"{_SHARED} MiB from one of {_RATE // 1_000_000} MB/s {one:.2f} s, from three {three:.2f} s"
            )
            print(f"ratio {gain:.2f} (budget {THREE})")
    return 0 if ratio >= CURL and gain >= THREE else 1


def _blob(root: Path, megabytes: int) -> str:
    """Make a blob and its description; returns its hash."""
    part = os.urandom(_CHUNK)
    data = part * megabytes
    name = sha256(data).hexdigest()
    (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    path = root / "blobs" / "sha256" / name
    path.write_bytes(data)
    facts = ("rootfs", len(data), name, *cut.read(hash_artifact(path).cut, len(data)))
    (root / f"{name}.json").write_text(json.dumps(facts))
    return name


def _alternate(
    ways: dict[str, Callable[[], None]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds that each way takes, and seconds of processor time of its processes."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun, before = time.perf_counter(), _processor()
            way()
            if number:  # the first ones fill caches
                times[name].append(time.perf_counter() - begun)
                spent[name].append(_processor() - before)
    medians = [{name: statistics.median(found) for name, found in each.items()} for each in (times, spent)]
    return medians[0], medians[1]


def _processor() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _shell(line: str, expected: str) -> None:
    found = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert found.split()[0] == expected, found


if __name__ == "__main__":
    sys.exit(main())
