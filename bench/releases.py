"""What `phase release` costs as a repository grows: whole commands, against a repository of one release.

    python -m bench.releases [--quick]

Repositories: 1, 100 and 1,000 releases of one channel, with a tenth as many rotations of all keys but the
root's among them; and 300 channels. Prints the median seconds of each command, its ratio to that in a
repository of one release, and what the metadata weighs before and after `prune`.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from fixtures import artifacts
from phase.release.keys import ReleaseKeys
from phase.release.prune import prune
from phase.release.repository import Repository

COMMANDS = {
    "add": "add repo c0 x86_64 --kernel kernel --release 9 --keys keys",
    "refresh": "refresh repo --keys keys",
    "status": "status repo",
    "verify": "verify repo",
    "rotate": "rotate repo --yes --keys keys",
    "export": "export repo out",
    "prune": "prune repo",
}
ROUNDS = 5


class _Shape(NamedTuple):
    name: str
    channels: int
    releases: int
    rotations: int


SHAPES = (
    _Shape("1 release", 1, 1, 0),
    _Shape("100 releases, 10 rotations", 1, 100, 10),
    _Shape("1000 releases, 100 rotations", 1, 1000, 100),
    _Shape("300 channels", 300, 300, 0),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.releases")
    parser.add_argument("--quick", action="store_true", help="Only the first two repositories.")
    shapes = SHAPES[:2] if parser.parse_args().quick else SHAPES
    print(f"{'':30}" + "".join(f"{name:>16}" for name in COMMANDS) + f"{'metadata':>12}{'pruned':>10}")
    floor: dict[str, float] = {}
    for shape in shapes:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            _build(place, shape)
            whole = _size(place / "repo")
            prune(Repository.open(place / "repo"))
            pruned = _size(place / "repo")
            seconds = {name: _time(place, words) for name, words in COMMANDS.items()}
            floor = floor or seconds
            cells = "".join(
                f"{seconds[name]:8.2f} {seconds[name] / floor[name]:5.2f}x " for name in COMMANDS
            )
            print(
                f"{shape.name:30}{cells}{whole / 1e6:9.2f} MB{pruned / 1e6:7.2f} MB",
                flush=True,
            )
    return 0


def _build(place: Path, shape: _Shape) -> None:
    keys = ReleaseKeys.generate({"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1, "release": 1})
    repository = Repository.create(place / "repo", keys=keys)
    repository.publish()
    for number in range(shape.releases):
        (place / "kernel").write_bytes(artifacts.kernel(size=2048, fill=b"%d " % number))
        repository = Repository.open(place / "repo", keys=keys)
        # All channels at once: 300 publications would be another measurement.
        channels = range(shape.channels) if shape.channels > 1 else [0]
        for channel in channels:
            repository.add(f"c{channel}", "x86_64", {"kernel": place / "kernel"}, release=f"{number}")
        if shape.rotations and number % (shape.releases // shape.rotations) == 0:
            fresh = ReleaseKeys.generate({"timestamp": 1, "snapshot": 1, "targets": 1, "release": 1})
            new = keys.but(**{role: fresh[role] for role in ("timestamp", "snapshot", "targets", "release")})
            repository.rotate(new)
            repository.publish()
            keys = new
            continue
        repository.publish()
        if shape.channels > 1:
            break
    keys.save(place / "keys")


def _time(place: Path, words: str) -> float:
    taken = []
    for _ in range(ROUNDS):
        shutil.rmtree(place / "out", ignore_errors=True)
        began = time.perf_counter()
        argv = [sys.executable, "-m", "phase", "release", *words.split()]
        subprocess.run(argv, cwd=place, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _size(repository: Path) -> int:
    return sum(path.stat().st_size for path in (repository / "metadata").iterdir())


if __name__ == "__main__":
    sys.exit(main())
