"""What an update of the real system costs: bytes fetched over bytes of the release.

    python -m bench.updates [--arch x86_64|arm64]

The rootfs that `python -m boot system` builds is unpacked, changed and packed again; `phase fetch` takes the
release before the change, and then the one after it, from one provider. The changes: six compiled modules, a
few bytes longer each; all of one Python package; one shared library.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import _serving
from boot import images
from boot import system as system_image
from boot.run import run
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

#: Of the first change, fetched bytes over those of the release.
BUDGET = 0.05
_PACKAGES = "usr/lib/python3/dist-packages"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.updates")
    parser.add_argument("--arch", default="x86_64")
    arch = parser.parse_args().arch
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        old = images.system(arch)
        run(["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", root / "tree", old.rootfs])
        for name, change in _CHANGES.items():
            place = root / name.replace(" ", "-")
            place.mkdir()
            changed = change(root / "tree", place / "tree")
            system_image.squash(place / "tree", place / "rootfs")
            shutil.rmtree(place / "tree")
            length, fetched = _update(place, old, place / "rootfs")
            ratios.append(fetched / length)
            ratio = f"ratio {ratios[-1]:.4f}"
            print(
                f"{name}: {fetched} of {length} bytes, {ratio}; files of {changed} bytes changed", flush=True
            )
    print(f"ratio of the first {ratios[0]:.4f} (budget {BUDGET})")
    return 0 if ratios[0] <= BUDGET else 1


def _copied(tree: Path, into: Path) -> None:
    run(["cp", "--archive", tree, into])


def _longer(files: list[Path]) -> int:
    """Make files longer in their middle; returns their bytes."""
    chance = random.Random(7)  # noqa: S311
    for file in files:
        data = file.read_bytes()
        middle = len(data) // 2
        file.write_bytes(data[:middle] + chance.randbytes(1 + chance.randrange(200)) + data[middle:])
    return sum(file.stat().st_size for file in files)


def _six(tree: Path, into: Path) -> int:
    _copied(tree, into)
    modules = sorted((into / "usr/lib").rglob("*.pyc"))
    found = [path for path in modules if 3000 < path.stat().st_size < 60_000]
    return _longer(random.Random(5).sample(found, 6))  # noqa: S311


def _package(tree: Path, into: Path) -> int:
    _copied(tree, into)
    return _longer([path for path in sorted((into / _PACKAGES / "click").rglob("*")) if path.is_file()])


def _library(tree: Path, into: Path) -> int:
    _copied(tree, into)
    return _longer([next(path for path in sorted(into.rglob("libc.so.6")) if path.is_file())])


_CHANGES: dict[str, Callable[[Path, Path], int]] = {
    "six modules": _six,
    "one package": _package,
    "libc": _library,
}


def _update(place: Path, old: images.System, rootfs: Path) -> tuple[int, int]:
    """Publish the release before and the one after, fetch both; bytes of the second, and fetched of it."""
    keys = ReleaseKeys.from_seed("bench")
    repository = Repository.create(place / "repository", keys=keys)
    report = {}
    for release, artifacts in (("1", old.artifacts()), ("2", old.artifacts() | {"rootfs": rootfs})):
        repository.add("stable", old.arch, artifacts, cmdline="quiet", release=release)
        repository.publish()
        with _serving.phase(place / "repository") as server:
            words = ["fetch", "--root", str(place / "repository/metadata/1.root.json"), "--json"]
            words += ["--arch", old.arch, "--output", str(place / "out"), "--provider", server.url]
            said = subprocess.run(
                [sys.executable, "-m", "phase", *words], capture_output=True, text=True, check=True
            ).stdout
        report = json.loads(said)
    return report["length"], report["fetched"]


if __name__ == "__main__":
    sys.exit(main())
