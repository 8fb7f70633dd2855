"""Options and fixtures of the scenarios."""

import pytest

from lab.board import option
from scenarios.images import ARCHES, Release

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
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release both architectures boot, signed with the lab's keys."""
    return Release.publish(tmp_path_factory.mktemp("release") / "repository")
