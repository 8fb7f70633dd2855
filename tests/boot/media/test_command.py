"""`python -m boot build usb`: what it refuses before it builds anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boot.baked import check_private

PROJECT = Path(__file__).parents[3]


def boot(*words: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a directory of its own."""
    return subprocess.run(
        [sys.executable, "-m", "boot", *words],
        capture_output=True,
        text=True,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(PROJECT), "PHASE_CACHE": str(directory / "cache")},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["usb"], "a medium needs --out FILE"),
        (["usb", "--out", "stick"], "--root FILE, whom it trusts"),
        (["usb", "seed", "--out", "stick", "--root", "r"], "one medium at a time"),
        (["seed", "--out", "stick"], "--out: for a medium"),
        (["seed", "--tor", "--allow-offline"], "--allow-offline, --tor: for a medium"),
        (["system", "--mode", "private"], "--mode: for a medium"),
        (["--grace", "local=3", "--cmdline", "x"], "--cmdline, --grace: for a medium"),
        (["usb", "--cache", "12"], "'12' is not a size, such as 512M or 2G"),
        (["usb", "--mode", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_usage(words: list[str], why: str, tmp_path: Path) -> None:
    done = boot("build", *words, directory=tmp_path)
    assert done.returncode == 2
    assert why in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["build", "usb", "--out", "out", "--root", "r.json", "--mode", "private"],
        ["seed", "--arch", "x86_64", "--root", "r.json", "--cmdline", "phase.mode=privat", "out"],
    ],
)
def test_private_mode_without_a_way_to_tor(words: list[str], tmp_path: Path) -> None:
    """It would fetch nothing, and say so only at its first boot."""
    (tmp_path / "r.json").write_bytes(b"{}")
    done = boot(*words, directory=tmp_path)
    assert done.returncode == 1
    assert "private mode fetches through Tor alone, and this seed has none" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_private_mode_with_a_way_to_tor() -> None:
    check_private("phase.mode=private phase.tor=192.0.2.9:9050", tor=False)
    check_private("phase.mode=private", tor=True)
    check_private("phase.mode=local", tor=False)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    done = boot("build", "usb", "--out", "stick", "--root", "r.json", directory=tmp_path)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("boot: ")
    assert "r.json" in said
    assert not list(tmp_path.iterdir())


def test_a_time_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "today")
    (tmp_path / "r.json").write_bytes(b"{}")
    done = boot("build", "usb", "--out", "stick", "--root", "r.json", directory=tmp_path)
    assert (done.returncode, "SOURCE_DATE_EPOCH is 'today'" in done.stderr) == (1, True)


def test_a_device_is_not_written_by_a_build(tmp_path: Path) -> None:
    """A medium takes the place of a file whole; a device has no place to take."""
    (tmp_path / "r.json").write_bytes(b"{}")
    os.mkfifo(tmp_path / "stick")
    done = boot("build", "usb", "--out", "stick", "--root", "r.json", directory=tmp_path)
    assert done.returncode == 1
    assert "stick is not a file. `python -m boot write`" in done.stderr


def test_a_cd_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"{}")
    done = boot("build", "iso", "--cache", "1G", "--out", "cd", "--root", "r.json", directory=tmp_path)
    assert done.returncode == 1
    assert "an ISO image has no partition to keep releases on" in done.stderr


def test_nothing_is_written_to_what_is_not_a_device(tmp_path: Path) -> None:
    (tmp_path / "stick").write_bytes(b"EFI PART".rjust(520).ljust(4096))
    (tmp_path / "photos").write_bytes(b"photos")
    done = boot("write", "stick", "photos", "--yes", directory=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "photos is not a block device" in done.stderr
    assert (tmp_path / "photos").read_bytes() == b"photos"
