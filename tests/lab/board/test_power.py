"""A board's commands as its file says them, and a glass board's line at its speed."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.board import description
from lab.board.board import Board
from lab.board.description import Power
from lab.board.glass import Glass
from lab.board.power import Commands
from lab.errors import InfrastructureError

#: Bits of one byte on the line: a start and a stop around it.
BITS = 10


class Desk:
    """A board whose switch is a file that says what was done with it, and whose line is a socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = socket.create_server(("127.0.0.1", 0))
        (directory / "file").write_bytes(b"")

    def board(self, power: str = "", medium: str = 'write = "echo written >>done"') -> Board:
        """One, by what its file says besides the least."""
        path = self.directory / "one.toml"
        path.write_text(
            f"""
            arch = "arm64"
            console = "ttyS0"
            [serial]
            url = "socket://127.0.0.1:{self.server.getsockname()[1]}"
            [power]
            on = "echo on >>done"
            off = "echo off >>done"
            pause = 0.0
            {power}
            [medium]
            {medium}
            """
        )
        file = self.directory / "file"
        directory = self.directory / "board"
        directory.mkdir()
        return Board("one", description.read(path), kernel=file, initrd=file, append="", directory=directory)

    @property
    def done(self) -> list[str]:
        """What was done, in order."""
        return (self.directory / "done").read_text().split()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.server.close()


def test_a_cycle_is_off_and_on_unless_the_file_says_more(desk: Desk) -> None:
    board = desk.board()
    board.start()
    assert desk.done == ["off", "written", "on"]
    board.cycle()
    assert desk.done[3:] == ["off", "off", "on"]
    board.stop()


def test_a_cycle_of_its_own(desk: Desk) -> None:
    board = desk.board('cycle = "echo cycled >>done"')
    board.start()
    board.cycle()
    assert desk.done[3:] == ["off", "cycled"]
    assert board.running
    board.stop()
    assert desk.done[-1] == "off"


def test_a_switch_that_fails_is_the_hosts_and_says_what(desk: Desk) -> None:
    board = desk.board('cycle = "echo no such relay >&2; exit 4"')
    board.start()
    with pytest.raises(InfrastructureError, match=r"off and on failed with exit code 4: .*\nno such relay"):
        board.cycle()
    assert not board.running
    assert desk.done[-1] == "off", "a board that may be on is switched off"


def test_a_medium_that_takes_too_long_is_the_hosts(desk: Desk) -> None:
    board = desk.board(medium='write = "echo half a card; exec sleep 60"\nseconds = 0.5')
    begun = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"medium took longer than .*\nhalf a card"):
        board.start()
    assert time.monotonic() - begun < 30
    assert not board.running


@pytest.mark.parametrize("way", ["from", "to"])
def test_a_glass_boards_line_is_no_faster_than_a_line(tmp_path: Path, way: str) -> None:
    glass = Glass(tmp_path, "x86_64", memory=64, loader=False, noise=0.0, seed="0")
    glass._uart, board = socket.socketpair()
    glass._uart.settimeout(0.05)
    sent = bytes(range(256)) * 20
    begun = time.monotonic()
    if way == "to":
        glass.transmit(sent)
        came = board.recv(len(sent), socket.MSG_WAITALL)
    else:
        board.sendall(sent)
        came = b""
        while len(came) < len(sent):
            came += glass.receive()
    took = time.monotonic() - begun
    assert came == sent
    assert took >= len(sent) * BITS / 115_200
    board.close()
    glass.off()
    glass._listener.close()


def test_a_slow_host_gets_more_time_to_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.board.power._SWITCHING", 0.1)
    power = Power(on="sleep 1", off="true")
    Commands(power, tmp_path, os.environ, 100).on()
    with pytest.raises(InfrastructureError, match="switching the board on took longer"):
        Commands(power, tmp_path, os.environ).on()
