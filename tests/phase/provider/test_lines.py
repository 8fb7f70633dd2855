"""Logs that are full, stuck or gone: said once, counted, and nothing else stops."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from phase.provider import access, lines
from phase.provider.lines import LOST, LineHandler, LineWriter


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    LOST.clear()
    monkeypatch.setattr(lines, "RETRY_SECONDS", 0.0)


@pytest.fixture
def said() -> list[str]:
    return []


def writer(said: list[str], place: Path) -> LineWriter:
    return LineWriter("access log", place=place, say=said.append)


@contextlib.contextmanager
def reader(pipe: Path) -> Iterator[int]:
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_full_log_disk_is_said_once_and_counted(said: list[str]) -> None:
    log = writer(said, Path("/dev/full"))
    for _ in range(50):
        log.write("a line")
    assert said == ["the access log cannot be written, lines are lost: No space left on device"]
    assert LOST == {"access log": 50}
    assert "has lost 50 lines: No space left" in log.problems()[0].text
    assert log.problems()[0] in lines.problems()


def test_a_disk_that_has_room_again_gets_whole_lines(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = writer(said, tmp_path / "log")
    write, room = os.write, [3]

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        done = write(descriptor, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", full)
    log.write("a line that is cut off")
    monkeypatch.setattr(os, "write", write)
    log.write("a whole one")
    assert (tmp_path / "log").read_text() == "a l\na whole one\n"
    assert said[1:] == ["the access log is written again; it has lost 1 lines in all"]


def test_a_pipe_without_a_reader_stops_nothing(said: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    log = writer(said, tmp_path / "pipe")
    log.write("lost")
    assert said == ["the access log cannot be written, lines are lost: No such device or address"]
    with reader(tmp_path / "pipe") as descriptor:
        log.write("read")
        assert os.read(descriptor, 100) == b"read\n"
        # One that does not read any more.
        for _ in range(2000):
            log.write("x" * 100)
        assert said[-1] == "the access log cannot be written, lines are lost: its reader does not read"
        assert LOST["access log"] > 1000
    log.write("its reader has left")
    assert LOST["access log"] > 1001


def test_a_file_is_followed_by_its_name(said: list[str], tmp_path: Path) -> None:
    log = writer(said, tmp_path / "log")
    log.write("one")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.write("two")
    (tmp_path / "log").unlink()
    log.reopen()
    log.write("three")
    assert (tmp_path / "log.1").read_text() == "one\n"
    assert (tmp_path / "log").read_text() == "three\n"
    assert not said


def test_a_directory_that_is_gone_is_waited_for(said: list[str], tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.mkdir()
    log = writer(said, place / "log")
    (place / "log").unlink()
    place.rmdir()
    log.write("lost")
    place.mkdir()
    log.write("there")
    assert (place / "log").read_text() == "there\n"
    assert [text[:30] for text in said] == [
        "the access log cannot be writt",
        "the access log is written agai",
    ]


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(said: list[str], tmp_path: Path) -> None:
    for place in (tmp_path / "no" / "log", tmp_path):
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            writer(said, place)


def test_standard_error_that_is_closed_or_full_is_counted() -> None:
    closed = os.open("/dev/null", os.O_WRONLY)
    os.close(closed)
    for descriptor in (closed, full := os.open("/dev/full", os.O_WRONLY)):
        handler = LineHandler(LineWriter("standard error", descriptor=descriptor, say=lambda _: None))
        handler.handle(logging.LogRecord("x", logging.ERROR, "x", 1, "number %d", ("no number",), None))
        handler.handle(logging.LogRecord("x", logging.ERROR, "x", 1, "fine", None, None))
    os.close(full)
    assert LOST == {"standard error": 4}


def test_a_line_that_cannot_be_encoded_is_written(said: list[str], tmp_path: Path) -> None:
    writer(said, tmp_path / "log").write("odd \udcff")
    assert (tmp_path / "log").read_bytes() == b"odd \\udcff\n"


def test_the_access_log_goes_through_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access._Place, "writer", None)
    access.log_to("/dev/full")
    access.refused("192.0.2.1", 503, 10)
    assert LOST == {"access log": 1}
    access.log_to(str(tmp_path / "log"))
    access.refused("192.0.2.1", 503, 10)
    assert '"status": 503' in (tmp_path / "log").read_text()
