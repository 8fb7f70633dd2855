import platform
import subprocess
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from lab.qemu.newborn import Plug, program, wait, wake
from lab.shell import MAX_COMMAND

HAD, HAS = IPv4Interface("10.77.0.10/24"), IPv4Interface("10.77.0.11/24")
ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", "EM_X86_64"), ("arm64", "EM_AARCH64")])
def test_the_program_is_a_whole_executable(tmp_path: Path, arch: str, machine: str) -> None:
    path = tmp_path / "reseed"
    path.write_bytes(program(arch))
    with path.open("rb") as file:
        elf = ELFFile(file)
        (segment,) = elf.iter_segments()
        assert elf["e_machine"] == machine
        assert segment["p_vaddr"] < elf["e_entry"] < segment["p_vaddr"] + segment["p_filesz"]
        assert segment["p_filesz"] == path.stat().st_size


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no program for this host")
def test_the_program_tells_what_the_kernel_said(tmp_path: Path) -> None:
    path = tmp_path / "reseed"
    path.write_bytes(program("x86_64" if platform.machine() == "x86_64" else "arm64"))
    path.chmod(0o700)
    # This is not a random device: ENOTTY is 25, and an exit code has eight bits.
    with Path("/dev/null").open("rb") as null:
        assert subprocess.run([path], stdin=null, check=False, timeout=10).returncode == 256 - 25


@pytest.mark.parametrize("arch", ["x86_64", "arm64"])
def test_the_command_is_shell_and_short_enough_to_type(arch: str) -> None:
    script = wait(arch)
    subprocess.run(["sh", "-n", "-c", script], check=True, timeout=10)
    assert len(script) <= MAX_COMMAND
    assert "@P" not in script


def test_every_clone_gets_other_chance() -> None:
    assert wake("one", 1.0, []) != wake("one", 1.0, [])


def test_only_what_changes_is_told() -> None:
    assert len(wake("one", 1.0, [Plug(ONE, ONE, HAD, HAD)]).split()) == 4
    assert wake("one", 1.6, [Plug(ONE, TWO, HAD, HAS)]).split()[4:] == [ONE, TWO, str(HAD), str(HAS)]
