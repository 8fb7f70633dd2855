"""What is made from the code and committed is what the code makes."""

from pathlib import Path

import pytest

from tests.pages.files import PLACES


@pytest.mark.parametrize("path", PLACES, ids=lambda path: path.name)
def test_the_committed_file_is_made_from_the_code(path: Path) -> None:
    assert path.read_text() == PLACES[path](), "run `python -m tests.pages`"
