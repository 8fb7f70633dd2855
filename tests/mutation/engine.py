"""mutmut, with the mutations that it lacks. Runs in a workspace, in a process of its own.

    python engine.py run|survivors [ONE_IN]

It imports nothing of the project: the project's own modules are what is mutated.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation import mutators
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

#: Processes. More would slow each other down, and what waits for a time would fail for that alone.
WORKERS = 2
#: What a process ends with that raised an error instead of running its tests; mutmut calls it slow.
_BROKE = 255


def never_true(node: cst.If) -> Iterable[cst.If]:
    """A check that never finds anything."""
    whole = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(
        test=cst.BooleanOperation(left=whole, operator=cst.And(), right=cst.Name("False"))
    )


def not_called(node: cst.Expr) -> Iterable[cst.BaseSmallStatement]:
    """A call for its effect alone, left out."""
    value = node.value.expression if isinstance(node.value, cst.Await) else node.value
    if isinstance(value, cst.Call):
        yield cst.Pass()


#: Types that casts name as texts, by id: nothing happens by them when the program runs.
_types: dict[int, cst.BaseExpression] = {}


def other_text(node: cst.BaseString) -> Iterable[cst.BaseString]:
    """One other text for each: mutmut's further ones differ in case, which many protocols ignore."""
    if id(node) not in _types:
        yield from list(mutators.operator_string(node))[:1]


def without_casts(operator: Callable[[cst.Call], Iterable[Any]]) -> Callable[[cst.Call], Iterable[Any]]:
    """Let an operator leave `cast` alone. Calls come before what is in them."""

    def others(node: cst.Call) -> Iterable[Any]:
        if isinstance(node.func, cst.Name) and node.func.value == "cast":
            _types[id(node.args[0].value)] = node.args[0].value
        else:
            yield from operator(node)

    others.__name__ = operator.__name__
    return others


def sampled(operator: Callable[[Any], Iterable[Any]], one_in: int) -> Callable[[Any], Iterable[Any]]:
    """Make of each so many mutations one, the same ones each time."""

    def some(node: Any) -> Iterable[Any]:
        before = cst.Module([]).code_for_node(node)
        for after in operator(node):
            text = f"{before} {operator.__name__} {cst.Module([]).code_for_node(after)}"
            if crc32(text.encode()) % one_in == 0:
                yield after

    return some


def extend(one_in: int = 1) -> None:
    """Give mutmut the mutations above.

    Args:
        one_in: how many mutants there could be for each that is made.
    """
    operators: list[Any] = mutators.mutation_operators
    operators[:] = [
        (kind, without_casts(operator) if kind is cst.Call else operator)
        for kind, operator in operators
        if operator is not mutators.operator_string
    ]
    operators += [(cst.BaseString, other_text), (cst.If, never_true), (cst.Expr, not_called)]
    if one_in > 1:
        operators[:] = [(kind, sampled(operator, one_in)) for kind, operator in operators]


def results() -> list[dict[str, object]]:
    """Every mutant: its file, function and fate; of those that live, what was changed."""
    found: list[dict[str, object]] = []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            fate = "no verdict" if code == _BROKE else status_by_exit_code[code]
            function = name.rpartition(".")[2].partition("__mutmut_")[0]
            function = ".".join(part for part in function.removeprefix("x_").split("ǁ") if part != "x")
            was, becomes = ("", "") if fate in ("killed", "timeout") else _change(name, path)
            found.append(
                {
                    "name": name,
                    "file": str(path),
                    "function": function,
                    "fate": fate,
                    "was": was,
                    "becomes": becomes,
                }
            )
    return found


def _change(name: str, path: Path) -> tuple[str, str]:
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    sides = ([line[1:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    was, becomes = (" ".join(side) for side in sides)
    return was, becomes


if __name__ == "__main__":
    extend(int(sys.argv[2]) if sys.argv[2:] else 1)
    if sys.argv[1] == "survivors":
        json.dump(results(), sys.stdout)
    else:
        cli(["run", "--max-children", str(WORKERS)])
