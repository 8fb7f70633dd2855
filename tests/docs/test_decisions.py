"""Each decision has a whole record, and both lists of them have all."""

import re
from pathlib import Path

import pytest

from tests import pages

DIRECTORY = pages.PROJECT / "docs/develop/decisions"
RECORDS = sorted(DIRECTORY.glob("0*.md"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_whole(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {int(record.stem[:4])}. ")
    assert re.search(r"^Status: (accepted|planned|replaced by \d+)", text, re.MULTILINE)
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        "Context",
        "Decision",
        "Alternatives refused",
        "Consequences",
    ]


@pytest.mark.parametrize("page", ["docs/develop/decisions/index.md", "docs/develop/design.md"])
def test_a_list_has_every_record(page: str) -> None:
    listed = re.findall(
        r"^\| (\d+) \| \[(.*)\]\((?:decisions/)?(.*)\) \|", (pages.PROJECT / page).read_text(), re.MULTILINE
    )
    titles = [re.findall(r"^# (\d+)\. (.*)", record.read_text())[0] for record in RECORDS]
    assert listed == [(*title, record.name) for title, record in zip(titles, RECORDS, strict=True)]
