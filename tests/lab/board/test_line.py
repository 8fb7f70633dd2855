import binascii
import contextlib
import os
import pty
import socket
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.board.description import Loader, Serial
from lab.board.line import Line, SerialPort
from lab.board.loader import command
from lab.console import Console
from lab.errors import InfrastructureError, MachineError


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The board's end of a terminal, and the path of the lab's."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_carries_both_ways(terminal: tuple[int, str]) -> None:
    board, path = terminal
    line = Line("one", SerialPort(Serial(url=path)))
    os.write(board, b"from the board\n")
    line.socket.settimeout(10)
    assert line.socket.recv(100) == b"from the board\n"
    line.socket.sendall(b"to it\n")
    assert os.read(board, 100) == b"to it\n"
    line.close()
    line.socket.close()


def test_types_no_faster_than_it_may(terminal: tuple[int, str]) -> None:
    board, path = terminal
    line = Line("one", SerialPort(Serial(url=path)), character_delay=0.01, line_delay=0.1)
    begun = time.monotonic()
    line.socket.sendall(b"12345\n12345\n")
    seen = b""
    while len(seen) < 12:
        seen += os.read(board, 100)
    assert seen == b"12345\n12345\n"
    # Ten characters and one whole line were waited for before the last byte.
    assert time.monotonic() - begun > 0.2
    line.close()
    line.socket.close()


def test_a_line_that_goes_away_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = Line("one", SerialPort(Serial(url=f"socket://127.0.0.1:{server.getsockname()[1]}")))
        server.accept()[0].close()
        line.socket.settimeout(10)
        assert line.socket.recv(1) == b""
        assert line.failure
        line.close()
        line.socket.close()


class Driver:
    """A driver with an exception of its own, on one of the two ways."""

    def __init__(self, fails: str) -> None:
        self._fails = fails

    def receive(self) -> bytes:
        if self._fails == "receive":
            raise RuntimeError("the exporter is gone")
        time.sleep(0.01)
        return b""

    def transmit(self, data: bytes) -> None:
        raise RuntimeError("the exporter is gone")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("fails", ["receive", "transmit"])
def test_whatever_a_driver_raises_is_the_lines_failure(tmp_path: Path, fails: str) -> None:
    """Not the machine's death: its console ends, and what ended it is told."""
    line = Line("one", Driver(fails))
    console = Console("one", line.socket, tmp_path / "log", lost=lambda: line.failure)
    console.send("a line\n")
    with pytest.raises(InfrastructureError, match="one: the exporter is gone"):
        console.wait_line("never", timeout=10)
    line.close()
    console.close()


def test_a_line_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"no-tty cannot be opened.*plugged in"):
        SerialPort(Serial(url=str(tmp_path / "no-tty")))


class Uboot:
    """Something that prompts, echoes and takes lines as U-Boot does; its ears are bad now and then.

    Others end a line otherwise, take it back with another key, or show nothing of what is typed.
    """

    def __init__(
        self,
        stream: socket.socket,
        deaf: int,
        *,
        enter: str = "\r",
        erase: str = "\x03",
        echo: bool = True,
        prompt: bytes = b"=> ",
        busy: float = 0.0,
    ) -> None:
        self._first = prompt
        self._busy = busy
        self._keys = (enter.encode(), erase.encode())
        self._echo = echo
        self.lines: list[str] = []
        self._stream = stream
        self._deaf = deaf
        self._heard = 0
        threading.Thread(target=self._until_closed, daemon=True).start()

    def _until_closed(self) -> None:
        with contextlib.suppress(OSError):  # it may be about to prompt
            self._run()

    def _run(self) -> None:
        stream = self._stream
        enter, erase = self._keys
        stream.sendall(b"U-Boot 2023.01\r\nHit any key to stop autoboot:  2 ")
        stream.recv(1)
        # Keys that come meanwhile wait, and are shown with the prompt.
        time.sleep(self._busy)
        waited = stream.recv(1000) if self._busy else b""
        stream.sendall(b"\r\n" + self._first + waited)
        line = ""
        while data := stream.recv(1):
            self._heard += 1
            if self._heard % self._deaf == 0:
                continue
            if data == erase:
                line = ""
                stream.sendall(b"<INTERRUPT>\r\n=> ")
            elif data == enter:
                if line.strip():
                    self.lines.append(line)
                line = ""
                stream.sendall(b"\r\n=> ")
            else:
                line += data.decode()
                if self._echo:
                    stream.sendall(data)


@pytest.mark.parametrize("deaf", [10_000, 67, 41])
def test_talks_to_a_boot_loader_that_hears_badly(tmp_path: Path, deaf: int) -> None:
    here, there = socket.socketpair()
    console = Console("one", here, tmp_path / "log", checked=True)
    loader = Loader(prompt="=> ", commands=("load kernel", "setenv bootargs {cmdline}", "boot"), seconds=60)
    uboot = Uboot(there, deaf)
    command(console, loader, "console=ttyS0 quiet")
    deadline = time.monotonic() + 10
    while not uboot.lines or uboot.lines[-1].strip() != "boot":
        assert time.monotonic() < deadline, uboot.lines
        time.sleep(0.01)
    assert [line.strip() for line in uboot.lines] == [
        "load kernel",
        "setenv bootargs console=ttyS0 quiet",
        "boot",
    ]
    there.close()
    console.close()


@pytest.mark.parametrize(
    ("keys", "deaf"),
    [
        ({"enter": "\n", "erase": "\x15"}, 41),
        ({"enter": "\n", "erase": "\x15", "echo": False}, 10_000),
        ({"enter": "\r", "erase": "", "echo": False}, 10_000),
    ],
)
def test_talks_to_a_boot_loader_with_other_keys(tmp_path: Path, keys: dict[str, Any], deaf: int) -> None:
    here, there = socket.socketpair()
    console = Console("one", here, tmp_path / "log", checked=True)
    uboot = Uboot(there, deaf, **keys)
    command(console, Loader(prompt="=> ", commands=("load kernel", "boot"), seconds=30, **keys), "")
    deadline = time.monotonic() + 10
    while len(uboot.lines) < 2:
        assert time.monotonic() < deadline, uboot.lines
        time.sleep(0.01)
    assert [line.strip() for line in uboot.lines] == ["load kernel", "boot"]
    there.close()
    console.close()


@pytest.mark.parametrize(
    ("start", "erase"),
    [({"busy": 1.5}, "\x03"), ({"busy": 1.5}, ""), ({"prompt": b"=\xbe "}, "\x03")],
)
def test_a_prompt_that_is_garbled_or_not_the_last_thing_shown(
    tmp_path: Path, start: dict[str, Any], erase: str
) -> None:
    here, there = socket.socketpair()
    console = Console("one", here, tmp_path / "log", checked=True)
    uboot = Uboot(there, 10_000, **start)
    command(console, Loader(prompt="=> ", commands=("boot",), erase=erase, seconds=20), "")
    deadline = time.monotonic() + 10
    while not uboot.lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [line.strip() for line in uboot.lines] == ["boot"]
    there.close()
    console.close()


def test_a_boot_loader_that_never_prompts(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    console = Console("one", here, tmp_path / "log", checked=True)
    there.sendall(b"BIOS says nothing more\n")
    with pytest.raises(MachineError, match="no prompt '=> '"):
        command(console, Loader(prompt="=> ", commands=("boot",), seconds=1), "")
    there.close()
    console.close()


def test_marks_count_once_and_only_with_a_checksum(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    console = Console("one", here, tmp_path / "log", checked=True)
    body = b'{"step":"init","outcome":"ok","t":2.66'
    good = b'phase-mark %s,"crc":"%08x"}\n' % (body, binascii.crc32(body))
    there.sendall(b"phase-mark " + body + b"}\n" + good.replace(b"ok", b"kk") + good + good)
    there.sendall(b"the end\n")
    console.wait_line("the end", timeout=10)
    assert [(mark.step, mark.outcome) for mark in console.marks] == [("init", "ok")]
    there.close()
    console.close()
