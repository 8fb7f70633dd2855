"""The loop on glass boards: the same scenarios, over a serial line that drops and garbles bytes.

The lab has nothing but that line and a power switch: no QMP, no fault on the cable, no word of QEMU's.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import infra
from lab.board import description, glass
from lab.board.board import Board
from lab.errors import MachineError
from lab.topology import Lab
from phase.boot import cpio
from scenarios import lab_guest
from scenarios.images import ARCHES
from scenarios.test_lab_clean import ROOT

#: One byte in 3300, each way; every mark is printed four times.
NOISE = ("--noise", "0.0003", "--append", "phase.marks=4")
LINES = {"x86_64": ("--line", "rfc2217"), "arm64": ("--line", "pty", "--loader")}
SCENARIOS = 5


@pytest.mark.lab(vcpus=0.6, memory=3072, seconds=330)
@pytest.mark.usefixtures("lab")  # for its lease
@pytest.mark.timeout(1200)
def test_the_loop_runs_unchanged(arch: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Every scenario of the loop passes on a board: on ARM64 through U-Boot's prompt."""
    arches = pytestconfig.getoption("--lab-arch") or ARCHES
    with (
        tempfile.TemporaryDirectory(prefix="g-") as desk,
        glass.running(Path(desk), arch, *LINES[arch], *NOISE) as board,
    ):
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "--override-ini=testpaths=scenarios"),
                *("--timeout=900", f"--board={board}", f"--lab-out={tmp_path / 'out'}"),
                *(f"--lab-arch={each}" for each in arches),
                "scenarios/test_loop.py",
            ],
            cwd=ROOT,
            # This test holds the host's lease for those within it.
            env=os.environ | {"LAB_LEASES": str(tmp_path / "leases")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert ran.returncode == 0, ran.stdout
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "records").iterdir()]
    # One takes a machine of the other architecture, too.
    passed = SCENARIOS - (len(arches) == 1)
    assert [record["outcome"] for record in records] == ["passed"] * passed, ran.stdout
    assert {(record["arch"], record["accel"]) for record in records} == {(arch, "board")}


@pytest.mark.lab(vcpus=0.2, seconds=35)
def test_a_garbled_line_is_no_pass(lab: Lab, arch: str, tmp_path: Path) -> None:
    """On a line that garbles one byte in ten no command has an exit code."""
    with (
        _guest(lab, arch, tmp_path, *LINES[arch][:2], "--noise", "0.1") as board,
        pytest.raises(MachineError),
    ):
        board.shell(timeout=30).succeed("true", timeout=10)


@pytest.mark.lab(vcpus=0.5)
def test_a_garbled_mark_is_none(lab: Lab, arch: str, tmp_path: Path) -> None:
    """A machine says a hundred marks, again and again: some come through, and those are what it said."""
    bodies = [f'{{"step":"s{number}","outcome":"ok","t":{number}' for number in range(100)]
    said = "".join(f'echo \'a-mark {body},"crc":"{zlib.crc32(body.encode()):08x}"}}\'\n' for body in bodies)
    script = f"#!/bin/sh\nmount -t devtmpfs dev /dev\nexec >/dev/console\nwhile :; do\n{said}done\n"
    init = cpio.regular("init", script.encode(), 0o755)
    with _guest(lab, arch, tmp_path, *LINES[arch][:2], "--noise", "0.01", init=init) as board:
        board.console.wait(lambda: len(board.marks) >= 50 or None, "fifty marks", timeout=120)
        garbled = sum("-mark" in line.text for line in board.console.lines) - len(board.marks)
        assert garbled > 10
        assert {(mark.step, mark.t) for mark in board.marks} <= {(f"s{each}", each) for each in range(100)}


@pytest.mark.lab(vcpus=0.3, seconds=45)
def test_a_mark_without_a_checksum_is_no_pass(lab: Lab, arch: str, tmp_path: Path) -> None:
    """The little guest's marks carry none; from a board's line they are not taken, and its shell is."""
    with _guest(lab, arch, tmp_path, *LINES[arch], "--noise", "0.0003") as board:
        shell = board.shell()
        assert shell.succeed("echo $((6 * 7))") == "42"
        assert "guest-mark" in board.console.text
        assert board.marks == []
        on_it = infra.host(shell)
        assert on_it.file("/init").contains("guest-mark")
        assert not on_it.file("/no/such/file").exists
        born = shell.succeed("cat /proc/sys/kernel/random/boot_id")
        board.cycle()
        assert board.shell().succeed("cat /proc/sys/kernel/random/boot_id") != born


@contextlib.contextmanager
def _guest(lab: Lab, arch: str, work: Path, *options: str, init: cpio.Node | None = None) -> Iterator[Board]:
    """The lab's little guest on a glass board, switched on."""
    kernel, initrd = lab_guest.build(arch, work)
    if init is not None:
        initrd = lab_guest.with_files(initrd, work / "other.cpio", [init])
    with (
        tempfile.TemporaryDirectory(prefix="g-") as desk,
        glass.running(Path(desk), arch, *options) as file,
    ):
        board = lab.board("glass", description.read(file), kernel=kernel, initrd=initrd)
        try:
            board.start()
            yield board
        finally:
            board.stop()
