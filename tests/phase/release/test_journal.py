"""Files of a repository are replaced all or none, and nothing else is."""

import json
from pathlib import Path

import pytest

from phase.release import journal
from phase.release.errors import RepositoryError
from phase.release.journal import Change

ONE, TWO, OLD = "metadata/1.root.json", "metadata/timestamp.json", "staged/stable-x86_64.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("metadata", "staged"):
        (tmp_path / name).mkdir()
    (tmp_path / OLD).write_text("waits")
    (tmp_path / TWO).write_text("old")
    return tmp_path


def left(directory: Path, steps: object, **contents: str) -> Path:
    """What a publication that was killed has left."""
    place = directory / "publishing"
    place.mkdir()
    for number, content in contents.items():
        (place / number.removeprefix("n")).write_text(content)
    (place / "order.json").write_text(json.dumps(steps))
    return place


def content(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()
    }


def test_files_are_replaced_made_and_removed(directory: Path) -> None:
    journal.carry_out(directory, [Change(ONE, b"first"), Change(TWO, b"new"), Change(OLD, None)])
    assert content(directory) == {ONE: "first", TWO: "new"}
    journal.carry_out(directory, [Change(OLD, None)])  # it is gone already
    assert content(directory) == {ONE: "first", TWO: "new"}
    assert journal.finish(directory) is False
    assert sorted(path.name for path in directory.iterdir()) == ["metadata", "staged"]


def test_nothing_to_do_makes_nothing(tmp_path: Path) -> None:
    journal.carry_out(tmp_path / "absent", [])
    assert not (tmp_path / "absent").exists()


def test_what_a_kill_has_left_is_completed(directory: Path) -> None:
    steps = [{"path": ONE}, {"path": TWO}, {"path": OLD, "remove": True}]
    left(directory, steps, n1="new")  # the first has its name already
    (directory / ONE).write_text("first")
    assert journal.finish(directory) is True
    assert content(directory) == {ONE: "first", TWO: "new"}
    assert journal.finish(directory) is False


def test_what_was_not_written_to_its_end_is_forgotten(directory: Path) -> None:
    new = directory / "publishing.new"
    new.mkdir()
    (new / "0").write_text("half")
    assert journal.finish(directory) is False
    assert content(directory) == {OLD: "waits", TWO: "old"}
    new.mkdir()
    (new / "5").write_text("half")
    journal.carry_out(directory, [Change(TWO, b"new")])
    assert content(directory) == {OLD: "waits", TWO: "new"}


@pytest.mark.parametrize(
    "steps",
    [
        [{"path": "../outside.json"}],
        [{"path": "metadata/../../outside.json"}],
        [{"path": "/etc/passwd"}],
        [{"path": TWO}, {"path": "blobs/sha256/0.json"}],
        [{"path": "metadata/.hidden.json"}],
        [{"path": "metadata/x", "remove": True}],
        {"path": TWO},
        [{"path": 1}],
        [{"path": f"metadata/{number}.json"} for number in range(20_001)],
    ],
    ids=lambda steps: str(steps)[:40],
)
def test_an_order_that_no_publication_writes_is_refused_whole(directory: Path, steps: object) -> None:
    left(directory, steps, n0="mine")
    before = content(directory)
    with pytest.raises(RepositoryError, match=r"publishing is damaged"):
        journal.finish(directory)
    assert content(directory) == before


def test_an_order_that_is_a_link_is_not_read(directory: Path) -> None:
    place = left(directory, [], n0="mine")
    (place / "order.json").rename(directory / "elsewhere")
    (place / "order.json").symlink_to(directory / "elsewhere")
    with pytest.raises(RepositoryError, match="cannot be completed"):
        journal.finish(directory)


def test_a_file_that_stands_for_the_journal_is_none(directory: Path) -> None:
    (directory / "publishing").write_text("")
    assert journal.finish(directory) is False
