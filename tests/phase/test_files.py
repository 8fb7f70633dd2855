"""A file is whole or absent: in every step, and after a power failure."""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phase import files

Maker = Callable[..., None]


def write_at(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """As the others, in a directory that is open."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files.write_at(directory, path.name, data, mode=mode)
    finally:
        os.close(directory)


MAKERS = pytest.mark.parametrize("make", [files.write, files.create, write_at])


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

    def naming(call: str) -> Callable[..., None]:
        def named(source: Any, target: Any, **more: int) -> None:
            taken.append((call, Path(target).name))
            real[call](source, target, **more)

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


@pytest.mark.parametrize("make", [files.write, write_at])
def test_writing_replaces_what_was_there(tmp_path: Path, make: Maker) -> None:
    make(tmp_path / "file", b"a longer text than the next")
    make(tmp_path / "file", b"next")
    assert (tmp_path / "file").read_bytes() == b"next"


def test_creating_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("make", [files.write, write_at])
@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_step_that_fails_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, make: Maker
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fails(*_: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fails)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("make", "step"),
    [
        (files.write, "fsync"),
        (files.create, "fsync"),
        (write_at, "fsync"),
        (files.write, "replace"),
        (write_at, "replace"),
        (files.create, "link"),
    ],
)
def test_an_error_is_told_as_it_was_when_the_temporary_file_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Maker, step: str
) -> None:
    def fails(*_: object, **more: object) -> None:
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


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links, as on a USB stick."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)


def test_without_hard_links_a_file_is_made_all_the_same(tmp_path: Path, no_links: None) -> None:
    before = os.listdir("/proc/self/fd")
    files.create(tmp_path / "file", b"whole", mode=0o600)
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]
    assert os.listdir("/proc/self/fd") == before


def test_without_hard_links_what_is_there_stays(tmp_path: Path, no_links: None) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "file").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "file", b"theirs")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file"]


def test_a_disk_that_fails_is_not_taken_for_one_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match="Input/output error"):
        files.create(tmp_path / "file", b"whole")
    assert os.listdir(tmp_path) == []


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "link", "dangling", "directory", "socket", "device"])
@pytest.mark.parametrize("within", [False, True])
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str, within: bool) -> None:
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        (tmp_path / "there").touch()
        path.symlink_to("there" if kind == "link" else "nowhere")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(OSError, match=f"it is not a regular file.*{path.name}") as refused:
            files.open_plain(path.name if within else path, directory=directory if within else None)
        assert refused.value.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO)
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(directory)


def test_a_plain_file_is_opened_as_it_is_asked(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.umask(0)
    try:
        made = files.open_plain("new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, directory=directory)
        os.write(made, b"text")
        assert os.get_inheritable(made) is False
        os.close(made)
        read = files.open_plain(tmp_path / "new")
        assert os.read(read, 9) == b"text"
        os.close(read)
    finally:
        os.umask(before)
        os.close(directory)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    with pytest.raises(FileNotFoundError):
        files.open_plain(tmp_path / "none")


def test_a_directory_is_opened_and_made_and_no_link_is_followed(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.umask(0)
    try:
        with pytest.raises(FileNotFoundError):
            files.open_directory("sub", top)
        for _ in range(2):
            made = files.open_directory("sub", top, make=True)
            assert os.readlink(f"/proc/self/fd/{made}") == str(tmp_path / "sub")
            assert os.get_inheritable(made) is False
            os.close(made)
        # Its name is durable; what was there already is not synced again.
        assert steps == [("fsync", tmp_path.name)]
        (tmp_path / "link").symlink_to("sub")
        (tmp_path / "file").touch()
        for name in ("link", "file"):
            for make in (False, True):
                with pytest.raises(OSError, match=r"directory|symbolic"):
                    files.open_directory(name, top, make=make)
    finally:
        os.umask(before)
        os.close(top)
    assert stat.S_IMODE((tmp_path / "sub").stat().st_mode) == 0o755


def test_all_of_it_is_written_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:3], offset))
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(20)
        files.pwrite(file.fileno(), b"0123456789", 5)
        files.pwrite(file.fileno(), bytearray(b"ab"), 0)
        assert file.read() == b"ab\0\0\0" + b"0123456789" + bytes(5)
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
        with pytest.raises(OSError, match="No space left") as full:
            files.pwrite(file.fileno(), b"x", 0)
        assert full.value.errno == errno.ENOSPC
        files.pwrite(file.fileno(), b"", 0)


def test_nothing_else_writes_without_looking_how_much_was_written() -> None:
    """`os.pwrite` may write less than it was given; `pwrite` here is the one that goes on."""
    package = Path(files.__file__).parent
    calls = [
        str(path.relative_to(package))
        for path in sorted(package.rglob("*.py"))
        if "os.pwrite(" in path.read_text() or "os.pwritev(" in path.read_text()
    ]
    assert calls == ["files.py"]
