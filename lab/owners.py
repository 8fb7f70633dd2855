"""Whose a failure is (decision 12 of the design): what the lab's own errors do not say themselves."""

import traceback
from pathlib import Path

import pytest

from lab.errors import LabError

_HERE = Path(__file__).parent
#: It stands around every test, so in every trace.
_AROUND = _HERE / "plugin"


def owner_of(error: BaseException, *, when: str = "call") -> str:
    """Who has to act on an exception.

    Args:
        error: that ended a scenario's phase, with its trace.
        when: pytest's name of that phase.

    Returns:
        `infrastructure`, `machine`, `product` or `misuse`.
    """
    if isinstance(error, LabError):
        return error.owner
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    inside = [_HERE in file.parents and _AROUND not in file.parents for file in files]
    if isinstance(error, pytest.fail.Exception):
        # The runner's patience ended: in the lab, whose own waits all end, or in what the scenario called.
        if any(file.name == "pytest_timeout.py" for file in files):
            return "infrastructure" if any(inside) else "product"
        # pytest's own word for a fixture that asks for one of a narrower scope.
        return "misuse" if when != "call" or str(error).startswith("ScopeMismatch") else "product"
    if isinstance(error, AssertionError):
        return "product"
    if inside[-1:] == [True] or (isinstance(error, OSError) and any(inside)):
        return "infrastructure"
    # Before the scenario's first line nothing has been expected of the product yet.
    return "product" if when == "call" else "misuse"
