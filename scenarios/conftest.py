"""Options and fixtures of the scenarios."""

import shutil

import pytest

from boot import cache
from lab.board import option
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "arch" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--lab-arch") or ARCHES
        board = option.chosen(metafunc.config)
        if board is not None and "board" in metafunc.fixturenames:
            # A board is what it is.
            chosen = (board.arch,)
        metafunc.parametrize("arch", chosen, scope="session")


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Release:
    """The release both architectures boot, signed with the lab's keys; one for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        base = base.parent
    directory = base / "release"
    with cache.locked(base / "release.lock"):
        # Published last: without it, a worker died half-way.
        if not (directory / "metadata" / "timestamp.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
            return Release.publish(directory)
    return Release(directory, Repository.open(directory, keys=keys.load(KEYS / "lab")))
