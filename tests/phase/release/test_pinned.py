"""What a directory of keys remembers, whatever is in the file that it remembers it in."""

import json
import os
from pathlib import Path

import pytest

from phase.release import pinned
from phase.release.errors import KeysError, RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.pinned import Pin, repository_id
from phase.release.repository import Repository
from phase.trust import Floor

OURS, OTHER = "a" * 64, "b" * 64
SEEN = Floor(root=1, timestamp=3, snapshot=2, meta={"targets.json": 1})


@pytest.fixture
def keys_of_two(tmp_path: Path) -> list[Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return [tmp_path / "one", tmp_path / "two"]


def test_what_is_remembered_is_there_the_next_time(keys_of_two: list[Path]) -> None:
    pin = Pin(keys_of_two, OURS)
    assert (pin.known, pin.floors) == (False, [])
    assert pin.remember(SEEN, {}) == []
    again = Pin(keys_of_two, OURS)
    assert (again.known, again.floors) == (True, [SEEN, SEEN])
    # A directory that is at hand only now knows nothing, and that is no reason to doubt.
    assert Pin([keys_of_two[0]], OURS).floors == [SEEN]
    newer = SEEN._replace(timestamp=4)
    again.remember(newer, {})
    assert Pin(keys_of_two, OURS).floors == [newer, newer]


def test_of_several_directories_one_may_know_it_alone(keys_of_two: list[Path]) -> None:
    Pin(keys_of_two[:1], OURS).remember(SEEN, {})
    both = Pin(keys_of_two, OURS)
    assert (both.known, both.floors) == (True, [SEEN])


def test_keys_that_know_others_only_must_be_told(keys_of_two: list[Path]) -> None:
    Pin(keys_of_two, OTHER).remember(SEEN, {})
    with pytest.raises(RepositoryError, match="have signed for another repository"):
        Pin(keys_of_two, OURS)
    told = Pin(keys_of_two, OURS, told=True)
    assert (told.known, told.floors) == (False, [])
    told.remember(Floor(root=1), {})
    # From then on both are known, each with its own.
    assert Pin(keys_of_two, OURS).floors == [Floor(root=1)] * 2
    assert Pin(keys_of_two, OTHER).floors == [SEEN] * 2


def test_of_too_many_repositories_the_one_signed_for_longest_ago_goes(keys_of_two: list[Path]) -> None:
    places = keys_of_two[:1]
    names = [f"{number:064x}" for number in range(65)]
    for name in names[:64]:
        Pin(places, name, told=True).remember(SEEN, {})
    Pin(places, names[0], told=True).remember(SEEN, {})
    Pin(places, names[64], told=True).remember(SEEN, {})
    kept = json.loads((places[0] / pinned.NAME).read_bytes())
    assert list(kept) == [*names[2:64], names[0], names[64]]


def test_a_directory_that_cannot_be_written_is_named_and_the_others_are(keys_of_two: list[Path]) -> None:
    pin = Pin(keys_of_two, OURS)
    keys_of_two[0].rmdir()
    (said,) = pin.remember(SEEN, {})
    assert f"{keys_of_two[0] / pinned.NAME} cannot be written" in said
    assert Pin(keys_of_two[1:], OURS).floors == [SEEN]


def test_who_may_use_the_keys_may_read_what_they_have_signed(keys_of_two: list[Path]) -> None:
    Pin(keys_of_two, OURS).remember(SEEN, {})
    assert (keys_of_two[0] / pinned.NAME).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"a": 1}', '{"a": {"root": -1}}', '{"a": {"root": "1"}}'],
    ids=["empty", "half", "list", "number", "negative", "text"],
)
def test_a_memory_that_is_damaged_is_no_empty_one(keys_of_two: list[Path], text: str) -> None:
    (keys_of_two[0] / pinned.NAME).write_text(text)
    with pytest.raises(KeysError, match=r"pinned\.json is damaged"):
        Pin(keys_of_two, OURS)


def test_a_memory_that_is_no_file_is_no_empty_one(keys_of_two: list[Path]) -> None:
    os.mkfifo(keys_of_two[0] / pinned.NAME)
    with pytest.raises(KeysError, match="cannot be read"):
        Pin(keys_of_two, OURS)


def test_a_repository_is_known_by_what_its_first_root_says(
    repository: Repository, keys: ReleaseKeys
) -> None:
    first = (repository.directory / "metadata/1.root.json").read_bytes()
    document = json.loads(first)
    fewer = json.dumps(document | {"signatures": document["signatures"][:1]}).encode()
    assert repository_id(first) == repository_id(fewer)
    document["signed"]["expires"] = "2030-01-01T00:00:00Z"
    assert repository_id(json.dumps(document).encode()) != repository_id(first)
    repository.rotate(keys)
    repository.publish()
    with pytest.raises(RepositoryError, match="root version 2, not the first"):
        repository_id((repository.directory / "metadata/2.root.json").read_bytes())
    with pytest.raises(RepositoryError, match="the first root is damaged"):
        repository_id(b"{}")
    with pytest.raises(RepositoryError, match="the first root is damaged"):
        repository_id(first + b" " * 512_000)
