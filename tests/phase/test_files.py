"""A file is whole or absent: in every step, and after a power failure."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phase import files

MAKERS = pytest.mark.parametrize("make", [files.write, files.create])
Maker = Callable[..., None]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the disk, in order: the call, and the name of the file."""
    taken: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        size = f" {status.st_size}" if stat.S_ISREG(status.st_mode) else ""
        taken.append((f"fsync{size}", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real["fsync"](descriptor)

    def naming(call: str) -> Callable[[Any, Any], None]:
        def named(source: Any, target: Any) -> None:
            taken.append((call, Path(target).name))
            real[call](source, target)

        return named

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", naming("replace"))
    monkeypatch.setattr(os, "link", naming("link"))
    return taken


@MAKERS
def test_the_content_is_synced_before_it_has_its_name_and_the_name_afterwards(
    tmp_path: Path, steps: list[tuple[str, str]], make: Maker
) -> None:
    make(tmp_path / "file", b"whole")
    (content, temporary), (named, name), directory = steps
    assert (content, name, directory) == ("fsync 5", "file", ("fsync", tmp_path.name))
    assert named in ("replace", "link")
    assert (temporary[:6], temporary[-4:]) == (".file.", ".tmp")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]


@MAKERS
def test_the_mode_is_the_one_asked_for_whatever_the_umask_says(tmp_path: Path, make: Maker) -> None:
    before = os.umask(0o077)
    try:
        make(tmp_path / "usual", b"")
        make(tmp_path / "shared", b"", mode=0o664)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "shared")] == [0o644, 0o664]


@MAKERS
def test_what_is_not_written_yet_is_not_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    opened: list[int] = []
    real = os.fchmod

    def fchmod(descriptor: int, mode: int) -> None:
        opened.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    make(tmp_path / "key", b"secret", mode=0o600)
    assert opened == [0o600]


def test_writing_replaces_what_was_there(tmp_path: Path) -> None:
    files.write(tmp_path / "file", b"a longer text than the next")
    files.write(tmp_path / "file", b"next")
    assert (tmp_path / "file").read_bytes() == b"next"


def test_creating_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_step_that_fails_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("make", "step"),
    [(files.write, "fsync"), (files.create, "fsync"), (files.write, "replace"), (files.create, "link")],
)
def test_an_error_is_told_as_it_was_when_the_temporary_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker, step: str
) -> None:
    def fails(*_: object) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="Input/output error"):
        make(tmp_path / "file", b"new")


@MAKERS
def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path: Path, make: Maker) -> None:
    make(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


@MAKERS
def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker
) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / f".file.{'00' * 8}.tmp").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        make(tmp_path / "file", b"theirs")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_each_directory_on_the_way_up_is_synced_and_none_above(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    (tmp_path / "top" / "a" / "b").mkdir(parents=True)
    files.sync_up(tmp_path / "top" / "a" / "b", tmp_path / "top")
    assert steps == [("fsync", "b"), ("fsync", "a"), ("fsync", "top")]


def test_a_file_system_that_cannot_sync_a_directory_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: int) -> None:
        raise OSError(22, "Invalid argument")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", refuses)
    files.sync_directory(tmp_path)
    assert os.listdir("/proc/self/fd") == before


def test_what_is_not_a_directory_is_not_synced_as_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        files.sync_directory(tmp_path / "file")
