"""`--board FILE`: the machine under test is a board."""

from pathlib import Path

import pytest

from lab.board import description
from lab.board.description import Description
from lab.errors import MisuseError

_CHOSEN = pytest.StashKey[Description | None]()


def add(group: pytest.OptionGroup) -> None:
    """Add the option."""
    group.addoption(
        "--board",
        type=Path,
        metavar="FILE",
        help="the machine under test is the board that this file describes; scenarios that ask for no "
        "`board` do not run",
    )


def chosen(config: pytest.Config) -> Description | None:
    """The board that `--board` names, if any.

    Raises:
        pytest.UsageError: the file describes none.
    """
    if _CHOSEN not in config.stash:
        path = config.getoption("--board")
        try:
            config.stash[_CHOSEN] = None if path is None else description.read(path)
        except MisuseError as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[_CHOSEN]


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a board, leave out what does not concern it, and lease it to what does."""
    found = chosen(config)
    if found is None:
        return
    wanted = [item for item in items if "board" in getattr(item, "fixturenames", ())]
    for item in wanted:
        item.add_marker(pytest.mark.lab(boards=(found.name,)))
    left = [item for item in items if item not in wanted]
    if left:
        config.hook.pytest_deselected(items=left)
    items[:] = wanted
