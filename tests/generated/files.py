"""What is made from the code, and how."""

from collections.abc import Callable
from pathlib import Path

from fixtures.vectors import files as vectors
from tests.generated import commands, schemas, tables, words

_TREE = Path(__file__).parents[2]
PLACES: dict[Path, Callable[[], str]] = {
    _TREE / "phase/cli/_words.py": words.render,
    _TREE / "docs/commands.md": commands.render,
    _TREE / "docs/tables.md": tables.render,
    **vectors.PLACES,
    **schemas.PLACES,
}
