"""Marks: one line, bounded, parseable whatever is put in."""

import binascii
import contextlib
import json
import os
import pty
import select
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import marks as lab_marks
from phase import marks
from phase.console import Consoles


def parse(line: str) -> dict[str, object]:
    tag, _, body = line.partition(" ")
    assert tag == "phase-mark"
    parsed: dict[str, object] = json.loads(body)
    text, _, rest = body.rpartition(',"crc":')
    assert rest == f'"{parsed.pop("crc")}"}}'
    assert rest == f'"{binascii.crc32(text.encode()):08x}"}}'
    return parsed


def test_a_mark_carries_step_outcome_time_and_facts() -> None:
    line = marks.line("fetch", "refused", t=1.23456, provider="http://a", bytes=3)
    assert parse(line) == {
        "step": "fetch",
        "outcome": "refused",
        "t": 1.235,
        "provider": "http://a",
        "bytes": 3,
    }


@given(st.dictionaries(st.sampled_from(["reason", "provider", "cmdline", "a", "b"]), st.text(max_size=3000)))
def test_a_mark_is_one_bounded_ascii_line_of_json(facts: dict[str, str]) -> None:
    line = marks.line("trust", t=1.0, **facts)
    assert len(line) <= marks.MAX_BYTES
    assert line.isascii()
    assert "\n" not in line
    assert parse(line)["step"] == "trust"


_FORGED = 'x","crc":"0"}\n\x1b[2J<3>phase-mark {"step":"job","outcome":"ok","t":1.0}\r\x9b31m'


def test_what_a_stranger_says_is_neither_a_mark_nor_an_escape() -> None:
    """A `spec_version` could put a newline, escapes and a mark with a valid checksum on the console."""
    for text in (_FORGED, marks.line("job", t=1.0), "-ma\0rk", "phase-mark " * 999):
        clean = marks.printable(text)
        assert clean.isascii()
        assert clean.isprintable()
        assert "-mark" not in clean
        assert lab_marks.parse(f"phase: trust: not from http://a: {clean}", 0.0) is None
        line = marks.line("trust", "refused", t=1.0, reason=text)
        found = lab_marks.parse(line, 0.0)
        assert found is not None
        assert found.step == "trust"
        # Nor is the rest of a line whose start was lost on its way.
        assert lab_marks.parse(line.partition("reason")[2], 0.0) is None


@given(st.text(), st.integers(0, 50))
def test_what_is_printable_is_bounded(text: str, limit: int) -> None:
    clean = marks.printable(text, limit)
    assert len(clean) <= max(limit, 3)
    assert clean.isascii()
    assert clean.isprintable()
    if text.isascii() and text.isprintable() and not set(text) & set('"\\') and len(text) <= limit:
        assert clean == text.replace("-mark", "_mark")


def test_what_is_printable_is_kept() -> None:
    plain = "".join(chr(code) for code in range(32, 127) if chr(code) not in '"\\')
    assert marks.printable(plain) == plain
    assert marks.printable('\x1f\x7f\x80\u20ac"\\') == " ???''"
    assert marks.printable("x" * 10, 10) == "x" * 10
    assert marks.printable("x" * 11, 10) == "x" * 7 + "..."


def test_a_plain_line_and_a_mark_of_a_stranger_are_one_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    marks.say(f"not from http://a: {_FORGED}")
    marks.emit("trust", "refused", reason=_FORGED)
    marks.say("x" * 5000)
    first, second, third = capfd.readouterr().err.splitlines()
    assert first.startswith("phase: not from http://a: x','crc'")
    assert second.startswith("phase-mark ")
    assert len(third) == marks.MAX_BYTES


@pytest.mark.parametrize(
    ("copies", "printed"), [("", 1), ("1", 1), ("9", 9), ("0", 1), ("10", 1), ("x", 1), ("X", 1), ("-1", 1)]
)
def test_a_mark_is_printed_as_often_as_the_line_asks(
    copies: str, printed: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHASE_MARK_COPIES", copies)
    marks.emit("init", t=1.0)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [marks.line("init", t=1.0)] * printed


def test_the_longest_fact_is_cut_first_and_the_line_kept() -> None:
    whole = parse(marks.line("fetch", t=1.0, reason="r" * 760, provider="http://a"))
    assert whole["reason"] == "r" * 760
    cut = parse(marks.line("fetch", t=1.0, reason="r" * 900, provider="p" * 79))
    assert (cut["reason"], cut["provider"]) == ("r" * 80 + "...", "p" * 79)
    exact = len(marks.line("a", t=1.0, b=""))
    for length, kept in ((marks.MAX_BYTES - exact, True), (marks.MAX_BYTES - exact + 1, False)):
        line = marks.line("a", t=1.0, b="x" * length)
        assert (parse(line)["b"] == "x" * length) == kept


class Seed:
    """A process that boots, with a kernel's log and a terminal in a directory."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = directory / "kmsg"
        self.log.touch()
        self.master, terminal = pty.openpty()
        tty.setraw(terminal)
        (directory / "ttyS0").symlink_to(os.ttyname(terminal))
        self.active = directory / "active"
        self.active.write_text("tty9 ttyS0\n")
        self.consoles = Consoles(active=str(self.active), devices=str(directory))
        self._terminal = terminal
        monkeypatch.setenv("PHASE_MARKS", "kmsg")
        monkeypatch.setattr(marks, "KMSG", str(self.log))
        monkeypatch.setattr(marks, "_consoles", self.consoles)

    def shown(self) -> str:
        """What the terminal has got."""
        found = b""
        while select.select([self.master], [], [], 0)[0]:
            found += os.read(self.master, 4096)
        return found.decode()

    def close(self) -> None:
        self.consoles.close()
        os.close(self.master)
        os.close(self._terminal)


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Seed]:
    made = Seed(tmp_path, monkeypatch)
    yield made
    made.close()


def test_people_read_on_the_console_whatever_the_log_level(seed: Seed) -> None:
    """With `quiet loglevel=3` not one line was seen; without it each failure stood three times."""
    marks.say("no provider was found")
    marks.emit("discover", "failed", t=1.0)
    assert seed.shown() == "phase: no provider was found\n"
    # The log has it for those who ask the log; the console does not show it a second time.
    log = seed.log.read_text().splitlines()
    assert log[-1] == f"<3>{marks.line('discover', 'failed', t=1.0)}"


def test_marks_leave_a_screen_to_people(seed: Seed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASE_MARK_LEVEL", "7")
    marks.emit("init", t=1.0)
    assert seed.log.read_text() == f"<7>{marks.line('init', t=1.0)}\n"


def test_a_console_that_is_stopped_stops_no_boot(seed: Seed) -> None:
    """Somebody pressed Ctrl-S: the line goes to the log, on the level that consoles show."""
    os.set_blocking(seed._terminal, False)
    for _ in range(10):  # what it holds moves on, until nothing can
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(seed._terminal, b"." * 4096)
        time.sleep(0.02)
    started = time.monotonic()
    marks.say("still here")
    assert time.monotonic() - started < 5
    assert "<3>phase: still here" in seed.log.read_text()


def test_without_a_list_of_consoles_the_one_of_this_process_is_used(tmp_path: Path) -> None:
    (tmp_path / "console").touch()
    consoles = Consoles(active=str(tmp_path / "none"), devices=str(tmp_path))
    assert consoles.show("hello")
    consoles.close()
    assert (tmp_path / "console").read_text() == "hello\n"
    (tmp_path / "active").write_text("../../etc/passwd nothing")
    assert not Consoles(active=str(tmp_path / "active"), devices=str(tmp_path)).show("hello")


def test_a_mark_is_as_short_as_it_can_be() -> None:
    body = '{"step":"init","outcome":"ok","t":1.0,"a":"b"'
    assert marks.line("init", t=1.0, a="b") == (
        f'phase-mark {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'
    )


def test_a_mark_that_is_printed_has_its_facts(capfd: pytest.CaptureFixture[str]) -> None:
    marks.emit("fetch", "retry", t=1.0, provider="http://a")
    assert capfd.readouterr().err == marks.line("fetch", "retry", t=1.0, provider="http://a") + "\n"


def test_silence_is_counted_from_the_last_line_for_people() -> None:
    marks.say("now")
    assert 0 <= marks.silence() < 60


def test_what_is_shown_is_kept_in_the_log_where_the_console_does_not_repeat_it(seed: Seed) -> None:
    marks.say("no provider was found")
    assert seed.log.read_text() == "<7>phase: no provider was found\n"


def test_the_first_process_of_a_machine_speaks_through_the_kernel_s_log(
    seed: Seed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PHASE_MARKS")
    marks.emit("init", t=1.0)
    assert seed.log.read_text() == ""
    assert capfd.readouterr().err == marks.line("init", t=1.0) + "\n"
    monkeypatch.setattr(os, "getpid", lambda: 1)
    marks.emit("init", t=2.0)
    assert seed.log.read_text() == f"<3>{marks.line('init', t=2.0)}\n"


def test_the_log_is_not_kept_open(seed: Seed) -> None:
    marks.say("opens the consoles")
    before = os.listdir("/proc/self/fd")
    marks.emit("init", t=1.0)
    assert os.listdir("/proc/self/fd") == before
