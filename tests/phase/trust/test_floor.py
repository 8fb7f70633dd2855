"""The clock does not go back, the floor is kept whole."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phase.trust import FormatError, clock, floor

FLOOR = floor.Floor(
    root=2,
    timestamp=9,
    snapshot=3,
    meta={"targets.json": 1},
    keys={"timestamp": ["a"]},
    time=7,
    roots={"b": 2},
)


def test_the_latest_time_known_counts() -> None:
    for times in [(3, 2, 1), (1, 3, 2), (1, 2, 3)]:
        found = clock.trusted_now(times[0], times[1], system=times[2])
        assert found == datetime.fromtimestamp(3, UTC)
    seen = datetime(2030, 1, 1, tzinfo=UTC)
    assert clock.trusted_now(0, seen, system=0) == seen


def test_an_absurd_clock_is_no_crash() -> None:
    assert clock.trusted_now(system=1e15).year == 9999


def test_a_floor_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "state" / "floor.json"
    assert floor.load(path) == floor.Floor()
    floor.save(path, FLOOR)
    assert floor.load(path) == FLOOR
    assert [each.name for each in path.parent.iterdir()] == ["floor.json"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"root":"x"}',
        b"[]",
        b"null",
        b'{"root":true}',
        b'{"meta":{"a":"1"}}',
        b'{"meta":[]}',
        b'{"keys":{"a":"b"}}',
        b'{"other":1}',
        b'{"roots":{"a":"1"}}',
        b'{"roots":[]}',
        b"[" * 100_000,
        b'{"root":"\xff"}',
    ],
)
def test_a_damaged_floor_does_not_start_over(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "floor.json"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        floor.load(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "directory"])
def test_what_is_no_file_is_no_floor(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "floor.json", tmp_path / "other"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(other)
    if kind == "link":
        floor.save(other, FLOOR)
    with pytest.raises(FormatError, match=r"floor\.json cannot be read"):
        floor.load(path)


@pytest.mark.parametrize(
    "floor_",
    [
        FLOOR._replace(timestamp=True),
        FLOOR._replace(meta={"a": True}),
        # The wrong type is the point.
        FLOOR._replace(keys={"timestamp": "a"}),  # type: ignore[dict-item]
        FLOOR._replace(meta={"é" * 60_000 + str(n): 1 for n in range(12)}),
    ],
)
def test_a_floor_that_could_not_be_read_is_not_written(tmp_path: Path, floor_: floor.Floor) -> None:
    path = tmp_path / "floor.json"
    floor.save(path, FLOOR)
    with pytest.raises(FormatError, match="these versions"):
        floor.save(path, floor_)
    assert floor.load(path) == FLOOR


def test_a_floor_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def renamed(source: Path, target: Path, **more: int) -> None:
        done.append(("name", Path(target).name))
        replace(source, target, **more)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    floor.save(tmp_path / "floor.json", FLOOR)
    assert [what for what, _ in done] == ["sync", "name", "sync"]
    assert Path(done[0][1]).name.startswith(".floor.json.")
    assert done[2] == ("sync", str(tmp_path))


def _wrong(value: object) -> Iterator[object]:
    """The same JSON with each of its values, one after the other, of another type."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from ({**value, key: other} for other in _wrong(each))
        yield from (list(value), None)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in _wrong(each))
        yield from (None, "text")
    elif isinstance(value, int):
        yield from (True, False, -1, 1.0, str(value), [value], None)
    else:
        yield from (1, True, None, [value])


def test_true_is_no_version_in_any_place_of_a_floor(tmp_path: Path) -> None:
    whole = FLOOR._replace(
        whole={"stable-x86_64.json": 4}, keys={"timestamp": ["a"], "snapshot": ["b", "c"]}
    )
    document = json.loads(floor.encode(whole))
    assert set(document) == set(floor.Floor._fields), "every field is tried"
    damaged = list(_wrong(document))
    assert len(damaged) > 60
    for each in damaged:
        with pytest.raises(FormatError, match="damaged"):
            floor.parse(json.dumps(each).encode(), "somewhere")
    assert floor.parse(json.dumps(document).encode(), "somewhere") == whole


def test_an_open_directory_is_read_and_written_wherever_its_path_leads_by_now(tmp_path: Path) -> None:
    """Others may change the path; what is open stays what it is."""
    ours, theirs = floor.publisher(b"ours"), floor.publisher(b"theirs")
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        first, second = floor.Floor(root=1, time=1), floor.Floor(root=2, time=2)
        for name, seen in ((ours, first), (theirs, second)):
            floor.keep(place, name, seen, floor.load_all(place, name, directory=opened), directory=opened)
        place.rename(elsewhere)
        place.mkdir()
        had = floor.load_all(place, ours, directory=opened)
        assert (had.own, had.others) == (first, (second,))
        floor.keep(place, ours, first._replace(time=3), had, directory=opened)
        assert floor.load_all(place, ours, directory=opened).own.time == 3
        assert list(place.iterdir()) == []
        assert floor.load_all(place, ours).own == floor.Floor()
    finally:
        os.close(opened)
