import errno
import os
from pathlib import Path

import pytest

from phase import trust
from phase.boot import efi, mounts
from phase.boot.errors import CacheError
from phase.trust import floor as floors
from phase.trust.floor import MAX_PUBLISHERS, Kept

FLOOR = trust.Floor(root=1, timestamp=7, snapshot=7, meta={"targets.json": 3}, time=1_800_000_000)
OURS, THEIRS = floors.publisher(b"our root"), floors.publisher(b"their root")
NOTHING = Kept()


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    assert efi.load(OURS, str(tmp_path)) == NOTHING
    efi.save(OURS, FLOOR, NOTHING, str(tmp_path))
    assert efi.load(OURS, str(tmp_path)).own == FLOOR
    # Non-volatile, for boot services and for the running system.
    assert (tmp_path / efi.name_of(OURS)).read_bytes()[:4] == b"\x07\0\0\0"


def test_flash_is_spared(tmp_path: Path) -> None:
    efi.save(OURS, FLOOR, NOTHING, str(tmp_path))
    had = efi.load(OURS, str(tmp_path))
    os.unlink(tmp_path / efi.name_of(OURS))
    efi.save(OURS, FLOOR._replace(time=FLOOR.time + 3600), had, str(tmp_path))
    assert not (tmp_path / efi.name_of(OURS)).exists()
    efi.save(OURS, FLOOR._replace(time=FLOOR.time + 86_400), had, str(tmp_path))
    assert (tmp_path / efi.name_of(OURS)).exists()


def test_two_publishers_seeds_on_one_machine_keep_a_variable_each(tmp_path: Path) -> None:
    newer = FLOOR._replace(timestamp=9)
    efi.save(OURS, FLOOR, NOTHING, str(tmp_path))
    efi.save(THEIRS, newer, efi.load(THEIRS, str(tmp_path)), str(tmp_path))
    ours, theirs = efi.load(OURS, str(tmp_path)), efi.load(THEIRS, str(tmp_path))
    assert (ours.own, ours.others) == (FLOOR, (newer,))
    assert (theirs.own, theirs.others) == (newer, (FLOOR,))


def test_what_was_kept_before_publishers_had_one_each_still_counts(tmp_path: Path) -> None:
    (tmp_path / efi.BEFORE).write_bytes(b"\x07\0\0\0" + floors.encode(FLOOR))
    assert efi.load(OURS, str(tmp_path)) == Kept(others=(FLOOR,))
    (tmp_path / efi.BEFORE).write_bytes(b"\x07\0\0\0{")
    with pytest.raises(trust.TrustError, match="is damaged"):
        efi.load(OURS, str(tmp_path))


def test_so_many_publishers_and_no_more(tmp_path: Path) -> None:
    """The one that was not seen for longest is forgotten, and what cannot be read before it."""
    names = [floors.publisher(bytes([number])) for number in range(MAX_PUBLISHERS + 3)]
    (tmp_path / efi.name_of("damaged")).write_bytes(b"\x07\0\0\0{")
    forgotten: list[str] = []
    for number, name in enumerate(names):
        had = efi.load(name, str(tmp_path))
        seen = FLOOR._replace(time=FLOOR.time + number)
        forgotten += efi.save(name, seen, had, str(tmp_path))
        assert len(os.listdir(tmp_path)) <= MAX_PUBLISHERS
    assert forgotten == [efi.name_of(name) for name in ("damaged", *names[:3])]
    # Its own is none too many.
    assert efi.save(names[-1], FLOOR, efi.load(names[-1], str(tmp_path)), str(tmp_path)) == ()
    assert len(os.listdir(tmp_path)) == MAX_PUBLISHERS


def test_a_damaged_one_is_for_a_person_who_is_told_what_helps(tmp_path: Path) -> None:
    path = tmp_path / efi.name_of(OURS)
    for content in (b"\x07\0\0\0{", b"\x07\0", b"\x07\0\0\0" + bytes(5000)):
        path.write_bytes(content)
        with pytest.raises(trust.TrustError, match=r"PhaseFloor.* is damaged") as caught:
            efi.load(OURS, str(tmp_path))
        assert "phase.mode=private boots without it" in caught.value.hint
        assert f"rm {path}" in caught.value.hint
        # Another publisher's seed passes over it.
        theirs = efi.load(THEIRS, str(tmp_path))
        assert theirs.own == trust.Floor()
        assert len(theirs.unreadable) == 1


def test_what_a_full_firmware_leaves_behind_is_no_floor(tmp_path: Path) -> None:
    (tmp_path / efi.name_of(OURS)).touch()
    assert efi.load(OURS, str(tmp_path)).own == trust.Floor()


def test_a_full_firmware_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    efi.save(OURS, FLOOR, NOTHING, str(tmp_path))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(CacheError, match="does not keep the floor: No space left"):
            efi.save(OURS, FLOOR._replace(timestamp=8), Kept(own=FLOOR), str(tmp_path))
        patch.setattr(os, "write", lambda _descriptor, data: len(data) - 1)
        with pytest.raises(CacheError, match="does not keep the floor: Input/output error"):
            efi.save(OURS, FLOOR._replace(timestamp=8), Kept(own=FLOOR), str(tmp_path))
    assert efi.load(OURS, str(tmp_path)).own == FLOOR


def test_what_the_firmware_has_no_room_for_is_said(tmp_path: Path) -> None:
    large = FLOOR._replace(meta={f"role-{number}.json": 1 for number in range(1000)})
    with pytest.raises(CacheError, match="too many for the firmware"):
        efi.save(OURS, large, NOTHING, str(tmp_path))
    with pytest.raises(CacheError, match="does not keep the floor: No such file"):
        efi.save(OURS, FLOOR, NOTHING, str(tmp_path / "none"))


def test_what_cannot_be_read_is_not_nothing(tmp_path: Path) -> None:
    (tmp_path / efi.name_of(OURS)).mkdir()
    with pytest.raises(trust.TrustError, match=r"PhaseFloor.* cannot be read: Is a directory"):
        efi.load(OURS, str(tmp_path))
    with pytest.raises(trust.TrustError, match="cannot be read: No such file"):
        efi.load(OURS, str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("number", "there"),
    [(errno.ENODEV, False), (errno.EOPNOTSUPP, False), (errno.EBUSY, True), (0, True)],
)
def test_only_firmware_without_variables_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    mount_fails_with(monkeypatch, number)
    assert efi.available(str(tmp_path)) is there
    assert not efi.available(str(tmp_path / "none"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EPERM])
def test_variables_that_cannot_be_reached_are_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    mount_fails_with(monkeypatch, number)
    with pytest.raises(trust.TrustError, match=r"cannot be read: .*keeps old releases out"):
        efi.available(str(tmp_path))


def mount_fails_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def mount(*_: str) -> None:
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts, "load_modules", lambda _: None)
    monkeypatch.setattr(mounts, "mount", mount)


def test_modules_are_loaded_in_their_order_and_one_that_is_there_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/ran\nexit 1\n')
    busybox.chmod(0o755)
    monkeypatch.setattr(mounts, "_BUSYBOX", str(busybox))
    (tmp_path / "listing").write_text("/lib/efi/one.ko\n/lib/efi/two.ko\n")
    mounts.load_modules(str(tmp_path / "listing"))
    assert (tmp_path / "ran").read_text() == "/lib/efi/one.ko\n/lib/efi/two.ko\n"
    (tmp_path / "none").touch()
    mounts.load_modules(str(tmp_path / "none"))


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO])
def test_variables_that_are_there_and_not_reached_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts, "load_modules", lambda _: None)
    monkeypatch.setattr(mounts, "mount", refuse)
    assert not efi.available(str(tmp_path / "absent"))
    with pytest.raises(trust.TrustError, match="cannot be read"):
        efi.available(str(tmp_path))


@pytest.mark.parametrize(
    ("number", "there"), [(errno.EBUSY, True), (errno.ENODEV, False), (errno.EOPNOTSUPP, False), (0, True)]
)
def test_variables_are_there_where_they_can_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    asked: list[object] = []

    def mount(*words: str) -> None:
        asked.append(words)
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts, "load_modules", asked.append)
    monkeypatch.setattr(mounts, "mount", mount)
    assert efi.available(str(tmp_path)) is there
    assert asked == ["/etc/modules-efi", ("efivarfs", str(tmp_path), "efivarfs")]
