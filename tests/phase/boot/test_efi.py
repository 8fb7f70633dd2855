import errno
import os
from pathlib import Path

import pytest

from phase import trust
from phase.boot import efi, mounts
from phase.boot.errors import CacheError

FLOOR = trust.Floor(root=1, timestamp=7, snapshot=7, meta={"targets.json": 3}, time=1_800_000_000)


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that are no variables: they have no flag to clear on every file system."""
    monkeypatch.setattr(efi, "_unlock", lambda _: None)
    return tmp_path


def test_what_is_kept_comes_back(variables: Path) -> None:
    assert efi.load(str(variables)) == trust.Floor()
    efi.save(FLOOR, trust.Floor(), str(variables))
    assert efi.load(str(variables)) == FLOOR
    # Non-volatile, for boot services and for the running system.
    assert (variables / efi.NAME).read_bytes()[:4] == b"\x07\0\0\0"


def test_flash_is_spared(variables: Path) -> None:
    efi.save(FLOOR, trust.Floor(), str(variables))
    os.unlink(variables / efi.NAME)
    efi.save(FLOOR._replace(time=FLOOR.time + 3600), FLOOR, str(variables))
    assert not (variables / efi.NAME).exists()
    efi.save(FLOOR._replace(time=FLOOR.time + 86_400), FLOOR, str(variables))
    assert (variables / efi.NAME).exists()


def test_a_damaged_one_is_for_a_person(variables: Path) -> None:
    (variables / efi.NAME).write_bytes(b"\x07\0\0\0{")
    with pytest.raises(trust.TrustError, match=r"PhaseFloor.* is damaged"):
        efi.load(str(variables))


def test_what_the_firmware_has_no_room_for_is_said(variables: Path) -> None:
    large = FLOOR._replace(meta={f"role-{number}.json": 1 for number in range(1000)})
    with pytest.raises(CacheError, match="too many for the firmware"):
        efi.save(large, FLOOR, str(variables))
    with pytest.raises(CacheError, match="does not keep the floor: No such file"):
        efi.save(FLOOR, trust.Floor(), str(variables / "none"))


def test_what_cannot_be_read_is_not_nothing(variables: Path) -> None:
    (variables / efi.NAME).mkdir()
    with pytest.raises(trust.TrustError, match=r"PhaseFloor.* cannot be read: Is a directory"):
        efi.load(str(variables))


@pytest.mark.parametrize(
    ("number", "there"),
    [(errno.ENODEV, False), (errno.EOPNOTSUPP, False), (errno.EBUSY, True), (0, True)],
)
def test_only_firmware_without_variables_remembers_nothing(
    variables: Path, monkeypatch: pytest.MonkeyPatch, number: int, there: bool
) -> None:
    mount_fails_with(monkeypatch, number)
    assert efi.available(str(variables)) is there
    assert not efi.available(str(variables / "none"))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EPERM])
def test_variables_that_cannot_be_reached_are_for_a_person(
    variables: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    mount_fails_with(monkeypatch, number)
    with pytest.raises(trust.TrustError, match=r"cannot be read: .*keeps old releases out"):
        efi.available(str(variables))


def mount_fails_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def mount(*_: str) -> None:
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mounts, "load_modules", lambda _: None)
    monkeypatch.setattr(mounts, "mount", mount)
