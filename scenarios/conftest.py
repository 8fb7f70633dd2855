"""Options and fixtures of the scenarios."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot import cache
from lab.board import option
from lab.qemu.command import Disk
from phase.release import keys
from phase.release.repository import Repository
from scenarios.images import ARCHES, KEYS, Release

pytest_plugins = ["lab.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lab-arch",
        action="append",
        choices=ARCHES,
        help="the architecture of the machine under test; may be repeated; both when left out",
    )
    parser.addoption("--power-cuts", type=int, default=3, help="power cuts in updates; default: 3")
    parser.addoption("--power-seed", type=int, default=0, help="of their moments; by chance when left out")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "images(*arches): boots images of these architectures beside that of its own machine"
    )


def _chosen(config: pytest.Config) -> tuple[str, ...]:
    return tuple(config.getoption("--lab-arch") or ARCHES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "arch" in metafunc.fixturenames:
        chosen = _chosen(metafunc.config)
        board = option.chosen(metafunc.config)
        if board is not None and "board" in metafunc.fixturenames:
            # A board has one architecture; --lab-arch does not change it.
            chosen = (board.arch,)
        metafunc.parametrize("arch", chosen, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs images of an architecture that this run is not for."""
    chosen = {*_chosen(config)}
    left_out = [item for item in items if not {*itertools.chain(*_images(item))} <= chosen]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _images(item: pytest.Item) -> Iterator[tuple[str, ...]]:
    return (marker.args for marker in item.iter_markers("images"))


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Release:
    """The release that the run's architectures boot, signed with the lab's keys; one for all its workers."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        base = base.parent
    directory = base / "release"
    with cache.locked(base / "release.lock"):
        # Published last: without it, a worker died half-way.
        if not (directory / "metadata" / "timestamp.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
            return Release.publish(directory, arches=_chosen(pytestconfig))
    return Release(directory, Repository.open(directory, keys=keys.load(KEYS / "lab")))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An empty disk on which seeds keep releases, made as docs/reference.md says."""
    image = tmp_path / "cache.ext4"
    image.touch()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "phase-cache", image, "256M"], check=True)
    return Disk(image, access="read-write")
