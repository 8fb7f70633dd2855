"""The page of cases names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs/develop/cases.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:tests|scenarios)/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| case |")]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda text: text)
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in functions(file)


def test_every_row_names_a_test() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        assert re.search(r"`(tests|scenarios)/[\w/]+\.py::test_\w+`", row), row
