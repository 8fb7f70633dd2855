"""Writing a medium: to files here, since no test may touch a device of this machine."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boot.errors import BuildError
from boot.media import devices, disk, write
from boot.media.devices import Device


def listed(**changes: Any) -> dict[str, Any]:
    """A stick, as lsblk 2.38 tells it."""
    return {
        "name": "sdb", "path": "/dev/sdb", "type": "disk", "size": 1 << 30, "ro": False, "fstype": None,
        "label": None, "mountpoints": [None], "model": "Flash Disk", "tran": "usb", "serial": "4C53",
        **changes,
    }  # fmt: skip


def part(**changes: Any) -> dict[str, Any]:
    """Its partition."""
    plain = {"name": "sdb1", "path": "/dev/sdb1", "type": "part", "fstype": "vfat", "label": "PHOTOS"}
    return listed(model=None, tran=None, serial=None) | plain | changes


def device(**changes: Any) -> Device:
    """What is read of it."""
    return devices.read(json.dumps({"blockdevices": [listed(**changes)]}), Path("/dev/sdb"))


def test_a_stick_may_be_written_to_and_is_described() -> None:
    found = device(children=[part(), part(name="sdb2", fstype=None, label=None)])
    assert devices.refusal(found, 1 << 30) == ""
    assert devices.lines(found) == [
        "/dev/sdb: Flash Disk usb 4C53, 1.1 GB",
        "  sdb1: 1.1 GB, vfat PHOTOS",
        "  sdb2: 1.1 GB, content unknown",
    ]
    assert devices.lines(device())[1:] == ["  nothing that this system knows"]
    assert devices.lines(device(fstype="ext4"))[1:] == ["  sdb: 1.1 GB, ext4"]


MAPPED = {"name": "vault", "type": "crypt", "mountpoints": [None]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"type": "part"}, "is a partition"),
        ({"type": "rom"}, "not a disk (lsblk calls it rom)"),
        ({"type": "loop"}, "not a disk (lsblk calls it loop)"),
        ({"mountpoints": ["/media/x"]}, "sdb on /dev/sdb is in use, at /media/x"),
        ({"children": [part(mountpoints=["/media/x"])]}, "sdb1 on /dev/sdb is in use, at /media/x"),
        ({"children": [part(), part(mountpoints=["[SWAP]"])]}, "in use, at [SWAP]"),
        ({"children": [part(mountpoints=["/run/x", "/"])]}, "this system runs from /dev/sdb"),
        ({"children": [part(children=[part(**MAPPED)])]}, "in use by vault (crypt)"),
        ({"children": [part(children=[part(**MAPPED | {"mountpoints": ["/"]})])]}, "this system runs from"),
        ({"ro": True}, "read-only"),
        ({"size": (1 << 30) - 1}, "1073741824 are needed"),
        ({"size": 0}, "has 0 bytes"),
    ],
)
def test_what_is_not_written_to(changes: dict[str, Any], why: str) -> None:
    assert why in devices.refusal(device(**changes), 1 << 30)


@pytest.mark.parametrize("text", ["", "[]", '{"blockdevices":[]}', '{"blockdevices":[{"name":"a"}]}'])
def test_lsblk_says_nothing_useful(text: str) -> None:
    with pytest.raises(BuildError, match="nothing useful of /dev/sdb"):
        devices.read(text, Path("/dev/sdb"))


def test_this_lsblk_has_the_columns() -> None:
    told = subprocess.run(
        ["lsblk", "--json", "--bytes", "--output", devices.COLUMNS], capture_output=True, text=True
    )
    assert "unknown column" not in told.stderr


@pytest.mark.parametrize("name", ["file", "directory", "nothing"])
def test_only_block_devices_are_looked_at(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(BuildError, match=f"{name}.*(is not a block device|No such file)"):
        devices.look(tmp_path / name)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A small one."""
    disk.write(tmp_path / "stick.img", {"EFI/BOOT/BOOTX64.EFI": b"x" * 3000})
    return tmp_path / "stick.img"


@pytest.fixture
def target(medium: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of a device that is larger, and full of something."""
    made = medium.with_name("device")
    made.write_bytes(b"\xa5" * (medium.stat().st_size + (3 << 20)))
    found = Device(made, "disk", made.stat().st_size, "a file", False, ())
    monkeypatch.setattr(devices, "look", lambda path: found)
    return made


def test_it_is_written_compared_and_no_old_table_is_left(
    medium: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write.write(medium, target, sure=lambda device, medium: True)
    written, wanted = target.read_bytes(), medium.read_bytes()
    assert written[: len(wanted)] == wanted
    assert set(written[-34 * 512 :]) == {0}
    between = written[len(wanted) : -34 * 512]
    assert set(between) == {0xA5}, "what is not the medium's is left"
    told = capsys.readouterr().err.splitlines()
    size = f"{len(wanted) / 1e6:.0f} MB"
    assert [line for line in told if line.endswith(f"{size.split()[0]} of {size}")] == [
        f"{what}: {size.split()[0]} of {size}" for what in ("written", "compared")
    ]


@pytest.mark.parametrize(("answer", "done"), [("yes\n", True), ("y\n", False), ("", False), ("no\n", False)])
def test_a_person_is_asked(
    medium: Path, target: Path, answer: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    before = target.read_bytes()
    assert write.write(medium, target) is done
    assert (target.read_bytes() == before) is not done


def test_a_device_that_is_refused_is_not_even_asked_about(
    medium: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Device(target, "disk", medium.stat().st_size - 1, "a file", False, ())
    monkeypatch.setattr(devices, "look", lambda path: small)
    before = target.read_bytes()
    with pytest.raises(BuildError, match="are needed"):
        write.write(medium, target, sure=lambda device, medium: pytest.fail("asked"))
    assert target.read_bytes() == before


def test_who_may_not_write_is_told_before_the_question(
    medium: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != target)
    with pytest.raises(BuildError, match=r"may not write to .*device\. Run it as root"):
        write.write(medium, target, sure=lambda device, medium: pytest.fail("asked"))


def test_what_only_the_kernel_knows_to_be_in_use(
    medium: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another namespace has mounted it; a scenario shows it with a real device."""

    def opened(path: Path, flags: int) -> int:
        assert flags & os.O_EXCL
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(BuildError, match=r"device is in use\. It may be mounted in a container"):
        write.write(medium, target, sure=lambda device, medium: True)


def test_another_device_at_the_last_moment(medium: Path, target: Path) -> None:
    """Between the question and the answer it was unplugged, and another has its name."""

    def sure(device: Device, medium: Path) -> bool:
        target.write_bytes(b"\xa5" * (medium.stat().st_size + (5 << 20)))
        return True

    with pytest.raises(BuildError, match="another device than it was"):
        write.write(medium, target, sure=sure)
    assert set(target.read_bytes()) == {0xA5}


def test_another_device_of_the_same_size_at_the_last_moment(
    medium: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = devices.look(target)

    def sure(device: Device, medium: Path) -> bool:
        monkeypatch.setattr(devices, "look", lambda path: found._replace(what="another stick"))
        return True

    before = target.read_bytes()
    with pytest.raises(BuildError, match="another device than it was"):
        write.write(medium, target, sure=sure)
    assert target.read_bytes() == before


class Worn(io.BytesIO):
    """A device that forgets one byte."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file.open("wb")

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, size: int | None = -1, /) -> bytes:
        place = self.tell()
        data = bytearray(super().read(size))
        if place <= 5_000_000 < place + len(data):
            data[5_000_000 - place] ^= 1
        return bytes(data)


def test_what_comes_back_otherwise_is_told(medium: Path) -> None:
    with medium.open("rb") as source, Worn(medium.with_name("any")) as worn:
        length = medium.stat().st_size
        with pytest.raises(BuildError, match="byte 5000000 was read back otherwise"):
            write.transfer(source, worn, length, length)


def test_progress_is_one_line_on_a_terminal_and_some_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = 10**13
    shown = write.Shown()
    for done in range(0, of + 1, of // 1000):
        shown("written", done, of)
    elsewhere = capsys.readouterr().err.splitlines()
    assert elsewhere == [f"written: {part * 1_000_000} of 10000000 MB" for part in range(11)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = write.Shown()
    for done in range(0, of + 1, of // 1000):
        shown("written", done, of)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.endswith("\rwritten: 10000000 of 10000000 MB\n")
    assert len(told.split("\r")) == 1 + 101


def test_a_file_that_no_device_would_boot(tmp_path: Path) -> None:
    (tmp_path / "stick.qcow2").write_bytes(b"QFI\xfb".ljust(4096, b"\0"))
    with pytest.raises(BuildError, match="no GUID partition table"):
        write.write(tmp_path / "stick.qcow2", tmp_path / "device")
