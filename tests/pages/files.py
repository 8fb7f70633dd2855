"""What is made from the code, and how."""

from collections.abc import Callable
from pathlib import Path

from tests.pages import words

_TREE = Path(__file__).parents[2]
PLACES: dict[Path, Callable[[], str]] = {
    _TREE / "phase/cli/_words.py": words.render,
}
