"""The machine under a kernel, with its files in a directory."""

import os
from pathlib import Path

import pytest

from phase.boot.errors import BootError
from phase.boot.linux import Linux
from phase.boot.memory import Memory


@pytest.fixture
def machine(tmp_path: Path) -> Linux:
    for name in ("proc", "etc", "run"):
        (tmp_path / name).mkdir()
    return Linux(proc=str(tmp_path / "proc"), etc=str(tmp_path / "etc"), run=str(tmp_path / "run"))


def test_a_command_line_of_any_bytes_is_read(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "proc/cmdline").write_bytes(b"quiet phase.job=caf\xe9 \xff\n")
    assert machine.command_line() == "quiet phase.job=caf\ufffd \ufffd"


def test_what_cannot_be_read_is_an_error_that_names_it(machine: Linux, tmp_path: Path) -> None:
    with pytest.raises(BootError, match="proc/cmdline cannot be read: No such file"):
        machine.command_line()
    (tmp_path / "etc/root.json").mkdir()
    with pytest.raises(BootError, match=r"etc/root\.json cannot be read: Is a directory"):
        machine.config("root.json")
    assert machine.config("floor.json") is None


def test_nothing_that_was_there_before_is_part_of_the_initrd(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "run/initrd").write_bytes(b"\xa5" * 8192)
    file = machine.open_initrd()
    assert os.fstat(file).st_size == 0
    os.write(file, b"kept")
    assert machine.open_initrd() == file
    assert os.fstat(file).st_size == 4
    os.close(file)


def test_the_initrd_is_not_written_through_a_link(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "run/initrd").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        machine.open_initrd()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_the_keeper_is_told_what_to_do_and_when(machine: Linux, tmp_path: Path) -> None:
    machine.set_rescue("poweroff", 10)
    assert (tmp_path / "run/rescue").read_text() == "poweroff 10\n"


def test_the_kernels_own_figures_are_read(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 600 kB\n")
    (tmp_path / "proc/iomem").write_text("00000000-001fffff : System RAM\n")
    assert machine.memory() == Memory(2 << 20, 1000 << 10, 600 << 10)
