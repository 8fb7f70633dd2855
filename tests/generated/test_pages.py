"""What is made from the code and committed is what the code makes."""

from pathlib import Path

import pytest

from tests.generated import tables
from tests.generated.files import PLACES


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_the_committed_file_is_made_from_the_code(path: Path) -> None:
    assert path.read_text() == PLACES[path](), "run `python -m tests.generated`"


def test_every_variable_that_the_code_names_is_in_the_table() -> None:
    given = {"PHASE_COMPLETE", "LAB_REPORT", "PHASE_"}
    assert tables.named() - tables.of_options() - given == set(tables.VARIABLES)
