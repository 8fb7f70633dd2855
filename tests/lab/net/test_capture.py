"""Captures, as this project reads them and as Wireshark does."""

import subprocess
from pathlib import Path

import pytest

from lab.net.capture import Capture, read

FRAME = b"\xff" * 6 + b"\x52\x54\0\0\0\1" + b"\x88\xb5"


@pytest.mark.parametrize("length", [14, 15, 16, 17, 255, 256, 257, 9000])
def test_what_is_written_is_read(tmp_path: Path, length: int) -> None:
    capture = Capture(tmp_path / "x.pcapng")
    links = [capture.link(name) for name in ("one", "another")]
    frame = FRAME.ljust(length, b"x")
    capture.add(links[1], "inbound", frame)
    capture.add(links[0], "outbound", frame)
    found = list(read(capture.flushed()))
    capture.close()
    assert [(each.link, each.direction) for each in found] == [("another", "inbound"), ("one", "outbound")]
    assert all((each.frame, each.length) == (frame[:256], length) for each in found)
    assert found[0].at <= found[1].at


def test_a_capture_stops_at_its_limit_and_says_so(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "x.pcapng", limit=1000)
    link = capture.link("one")
    for _ in range(100):
        capture.add(link, "inbound", FRAME.ljust(100))
    path = capture.flushed()
    capture.close()
    assert len(list(read(path))) == 7
    assert capture.cut == 93
    assert path.stat().st_size < 1400
    assert b"limit of 1000 bytes" in path.read_bytes()


def test_wireshark_reads_it(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "x.pcapng", limit=300)
    links = [capture.link(name) for name in ("one", "another")]
    for number in range(9):
        capture.add(links[number % 2], "outbound" if number % 2 else "inbound", FRAME.ljust(60))
    path = capture.flushed()
    capture.close()
    fields = ("frame.interface_name", "frame.packet_flags_direction", "frame.len", "frame.comment")
    words = [word for field in fields for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-r", path, "-T", "fields", *words], check=True, capture_output=True, text=True
    )
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["one", "another", "one"]
    assert [int(row[1], 0) for row in rows] == [1, 2, 1]
    assert [row[2] for row in rows] == ["60"] * 3
    assert [bool(row[3]) for row in rows] == [False, False, True]
    assert "Malformed" not in done.stdout


def test_a_block_that_is_not_all_there_yet_is_none(tmp_path: Path) -> None:
    """Who reads beside a switch that writes meets one, anywhere in it."""
    capture = Capture(tmp_path / "x.pcapng")
    link = capture.link("one")
    whole = capture.flushed().stat().st_size
    capture.add(link, "inbound", FRAME)
    capture.close()
    content = (tmp_path / "x.pcapng").read_bytes()
    torn = tmp_path / "torn"
    for size in range(whole, len(content)):
        torn.write_bytes(content[:size])
        assert list(read(torn)) == []
