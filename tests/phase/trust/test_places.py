"""What is remembered, in each place and by all of them together."""

import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from phase.trust import FormatError, TrustedState, clock, floor
from phase.trust.state import recovered

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


def test_a_place_keeps_what_it_knows_of_other_publishers_roots() -> None:
    new = floor.Floor(root=5, roots={"x": 5, "z": 1})
    assert floor.replacing(new, ONE._replace(roots={"x": 6, "y": 4})).roots == {"x": 6, "y": 4, "z": 1}


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
