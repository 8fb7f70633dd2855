"""What is remembered, in each place and by all of them together."""

import json
import os
import stat
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from phase.trust import FormatError, TrustedState, clock, floor
from phase.trust.state import MAX_KNOWN_BY, recovered

EMPTY = floor.Floor()
ONE = floor.Floor(
    root=3, timestamp=4, snapshot=5, meta={"a": 1, "b": 7}, keys={"timestamp": ["k"]}, time=6, roots={"x": 2}
)
OTHER = floor.Floor(
    root=2, timestamp=9, snapshot=1, meta={"b": 2, "c": 3}, keys={"timestamp": ["l"]}, time=8, roots={"y": 1}
)


def test_the_highest_of_each_field_counts_wherever_it_is_remembered() -> None:
    found = floor.merged([EMPTY, ONE, OTHER])
    assert found == floor.Floor(
        root=3,
        timestamp=9,
        snapshot=5,
        meta={"a": 1, "b": 7, "c": 3},
        keys=ONE.keys,
        time=8,
        roots={"x": 2, "y": 1},
    )


def test_no_place_remembers_nothing() -> None:
    assert floor.merged([]) == EMPTY
    assert floor.encode(floor.merged([])) == floor.encode(EMPTY)


def test_a_place_with_little_room_keeps_what_it_boots() -> None:
    many = ONE._replace(meta={"targets.json": 2, **{f"role-{number}.json": 1 for number in range(9)}})
    assert floor.reduced(many, ["role-3.json", "role-99.json"]) == ONE._replace(
        meta={"targets.json": 2, "role-3.json": 1}
    )


def test_other_keys_end_what_the_old_ones_vouched_for_and_nothing_else(publisher: Any, now: Any) -> None:
    root = publisher.refresh().floor
    state = TrustedState(publisher.root, now=now)
    kept = floor.Floor(root=ONE.root, time=ONE.time, roots=ONE.roots)
    assert recovered(ONE, state.root) == kept
    assert recovered(ONE._replace(keys={"timestamp": root.keys["timestamp"]}), state.root) == kept
    same = ONE._replace(keys=root.keys)
    assert recovered(same, state.root) == same
    assert recovered(ONE._replace(keys={}), state.root) == ONE._replace(keys={})


def test_a_clock_that_says_1970_is_believed_where_nothing_is_known() -> None:
    assert clock.trusted_now(system=0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert clock.trusted_now(last_seen=0.0, system=0) == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_system_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 86_400.7)
    assert clock.trusted_now() == datetime(1970, 1, 2, tzinfo=UTC)


def test_a_floor_of_zeros_is_kept(tmp_path: Path) -> None:
    floor.save(tmp_path / "floor.json", EMPTY)
    assert floor.load(tmp_path / "floor.json") == EMPTY


def test_a_negative_version_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="positive"):
        floor.save(tmp_path / "floor.json", EMPTY._replace(time=-1))


def test_only_its_owner_reads_the_floor(tmp_path: Path) -> None:
    floor.save(tmp_path / "floor.json", ONE)
    assert stat.S_IMODE((tmp_path / "floor.json").stat().st_mode) == 0o600


def test_a_floor_takes_as_little_room_as_it_can() -> None:
    assert floor.encode(ONE) == (
        b'{"root":3,"timestamp":4,"snapshot":5,"meta":{"a":1,"b":7},"keys":{"timestamp":["k"]},"time":6,'
        b'"roots":{"x":2}}'
    )


def test_a_file_as_large_as_the_limit_is_read_and_no_larger_one(tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    text = floor.encode(ONE)
    path.write_bytes(text.ljust(4 << 20))
    assert floor.load(path) == ONE
    path.write_bytes(text.ljust((4 << 20) + 1))
    with pytest.raises(FormatError, match=f"{path} is damaged: it has more than 4194304 bytes"):
        floor.load(path)


def test_a_file_larger_than_the_memory_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    path.touch()
    os.truncate(path, 1 << 42)
    with pytest.raises(FormatError, match="more than"):
        floor.load(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "floor.json").write_bytes(b"{")
    with pytest.raises(FormatError, match=f"{tmp_path}/floor.json is damaged"):
        floor.load(tmp_path / "floor.json")


def test_a_file_made_on_a_foreign_disk_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(floor.open_plain(tmp_path / "new", os.O_CREAT | os.O_WRONLY))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_what_is_not_a_file_is_not_kept_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="not a regular file"):
        floor.open_plain(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_a_publisher_that_is_not_known_has_no_least_root() -> None:
    assert floor.least_root(ONE, []) == floor.least_root(ONE, ["unknown"]) == 0
    assert floor.least_root(ONE, ["unknown", "x"]) == 2
    # A floor from before publishers were told apart counts for all of them.
    assert floor.least_root(ONE._replace(roots={}), ["x"]) == 3


def test_a_key_is_called_by_its_first_sixteen_digits() -> None:
    assert floor.short("0123456789abcdef" * 4) == "0123456789abcdef"


def test_a_version_of_zero_is_remembered_as_one() -> None:
    assert floor.merged([EMPTY._replace(meta={"a": 0})]).meta == {"a": 0}


OURS, THEIRS = floor.publisher(b"our root"), floor.publisher(b"their root")


def test_a_directory_keeps_a_floor_for_each_publisher(tmp_path: Path) -> None:
    assert floor.load_all(tmp_path / "none", OURS) == floor.Kept()
    floor.save(tmp_path / floor.BEFORE, ONE)
    for publisher, new in ((OURS, ONE), (THEIRS, OTHER)):
        floor.keep(tmp_path, publisher, new, floor.load_all(tmp_path, publisher))
    ours, theirs = (floor.load_all(tmp_path, publisher) for publisher in (OURS, THEIRS))
    assert (ours.own, ours.others) == (ONE, (ONE, OTHER))
    assert (theirs.own, theirs.others) == (OTHER, (ONE, ONE))
    assert ours.all == (ONE, ONE, OTHER)


def test_a_floor_that_cannot_be_read_stops_its_own_publisher(tmp_path: Path) -> None:
    path = tmp_path / floor.name_of(OURS)
    for make in (lambda: path.write_bytes(b"{"), path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(FormatError, match=r"(is damaged|cannot be read): .*Remove it only if you know"):
            floor.load_all(tmp_path, OURS)
        theirs = floor.load_all(tmp_path, THEIRS)
        assert theirs.others == ()
        assert str(path) in theirs.unreadable[0]
        path.rmdir() if path.is_dir() else path.unlink()
    assert floor.load_all(tmp_path, OURS) == floor.Kept()
    (tmp_path / floor.BEFORE).write_bytes(b"{")
    with pytest.raises(FormatError, match="is damaged"):
        floor.load_all(tmp_path, OURS)


@pytest.mark.parametrize("opened", [True, False])
def test_a_directory_forgets_the_oldest_of_too_many_publishers(tmp_path: Path, opened: bool) -> None:
    names = [floor.publisher(bytes([number])) for number in range(floor.MAX_PUBLISHERS + 2)]
    directory = os.open(tmp_path, os.O_RDONLY) if opened else None
    forgotten: list[str] = []
    for number, name in enumerate(names):
        had = floor.load_all(tmp_path, name, directory=directory)
        new = ONE._replace(time=100 - number)
        forgotten += floor.keep(tmp_path, name, new, had, directory=directory)
    if directory is not None:
        os.close(directory)
    last, before = floor.name_of(names[-3]), floor.name_of(names[-2])
    assert forgotten == [last, before]
    assert len(os.listdir(tmp_path)) == floor.MAX_PUBLISHERS


def test_a_publisher_of_many_keys_is_known_by_some(publisher: Any, now: Any) -> None:
    """Firmware has little room: of all that a chain of roots has named, the first and the newest count."""
    state = TrustedState(publisher.root, now=now)
    first = state.new_floor().roots
    state._known_by |= {f"{number:016}": None for number in range(1000)}
    found = state.new_floor().roots
    assert len(found) == MAX_KNOWN_BY
    assert first.keys() <= found.keys()
    assert f"{999:016}" in found


def test_a_floor_of_very_many_values_is_not_read(tmp_path: Path) -> None:
    """Four megabytes of short names would take a hundred of memory, nine times on a prepared disk."""
    many = {f"{number:x}": 1 for number in range(300_000)}
    text = json.dumps({"root": 1, "meta": many}, separators=(",", ":")).encode()
    assert len(text) < 4 << 20
    names = [floor.name_of(floor.publisher(bytes([number]))) for number in range(20)]
    for name in names:
        (tmp_path / name).write_bytes(text)
    tracemalloc.start()
    found = floor.load_all(tmp_path, OURS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.others == ()
    assert len(found.unreadable) == floor.MAX_PUBLISHERS + 1
    assert all("more than 16384 values" in why for why in found.unreadable)
    assert peak < 16 << 20
    with pytest.raises(FormatError, match="cannot be remembered: they have more than 16384 values"):
        floor.encode(ONE._replace(meta=many))
