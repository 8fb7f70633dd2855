"""What is only said to a person is marked, and nothing else."""

import ast
from pathlib import Path

import pytest

from tests.mutation.wording import marked

PROJECT = Path(__file__).resolve().parents[2]
MARK = "  # pragma: no mutate"


def test_a_refusal_is_marked_and_what_leads_to_it_is_not() -> None:
    source = 'if size > limit:\n    raise TooLarge(\n        f"{size}",\n        hint="",\n    )\ngo(1)\n'
    lines = marked(source).splitlines()
    assert [line.endswith(MARK) for line in lines] == [False, True, True, True, True, False]


def test_a_line_with_a_comment_keeps_its_code() -> None:
    assert marked("raise Bad('#')  # why\n") == f"raise Bad('#'){MARK}\n"


def test_an_error_that_is_made_and_what_is_logged_is_marked() -> None:
    assert marked("return BadError('x')\n") == f"return BadError('x'){MARK}\n"
    assert marked("_log.warning('x')\n") == f"_log.warning('x'){MARK}\n"
    assert marked("socket.error('x')\n") == "socket.error('x')\n"


def test_no_mark_is_put_into_a_text_of_several_lines() -> None:
    source = 'raise Bad("""one\ntwo""")\n'
    assert marked(source) == f'raise Bad("""one\ntwo"""){MARK}\n'


@pytest.mark.parametrize("path", sorted((PROJECT / "phase").rglob("*.py")), ids=lambda path: path.name)
def test_the_program_stays_the_same(path: Path) -> None:
    source = path.read_text()
    assert ast.dump(ast.parse(marked(source)), include_attributes=True) == ast.dump(
        ast.parse(source), include_attributes=True
    )
