"""What a scenario may get wrong about a machine, said in one line; and how a QEMU that ended is named."""

import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.console import Console
from lab.errors import InfrastructureError, MachineDied, MisuseError
from lab.qemu.command import Disk
from lab.qemu.monitor import Event
from lab.qemu.process import Process
from lab.qemu.vm import VM
from lab.topology import Lab


@pytest.fixture
def made(tmp_path: Path) -> Any:
    (tmp_path / "kernel").touch()
    with Lab(factor=1) as lab:
        yield lab


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kernel": "/a/string"}, r"one: '/a/string' is not a pathlib.Path"),
        ({"initrd": b"bytes"}, r"one: b'bytes' is not a pathlib.Path"),
        ({"memory": -5}, r"one: memory=-5 is not a whole number above 0"),
        ({"memory": 0}, r"one: memory=0 is not"),
        ({"memory": "512"}, r"one: memory='512' is not"),
        ({"cpus": 0.5}, r"one: cpus=0.5 is not"),
        ({"append": None}, r"one: None is not text"),
        ({"segments": ["x"]}, r"one: segments takes what lab\.segment\(\) makes, not 'x'"),
        ({"disks": ("image.qcow2",)}, r"one: disks takes lab\.qemu\.command\.Disk, not 'image.qcow2'"),
        ({"disks": Disk(Path("/nowhere"))}, r"one: disks takes a list"),
        ({"kernel": Path("/nowhere")}, r"one: there is no /nowhere"),
    ],
)
def test_a_machine_that_cannot_be_is_a_mistake(
    made: Lab, tmp_path: Path, words: dict[str, Any], said: str
) -> None:
    facts: dict[str, Any] = {"arch": "x86_64", "kernel": tmp_path / "kernel"} | words
    with pytest.raises(MisuseError, match=said):
        made.vm("one", **facts)
    assert made.machines == {}


@pytest.mark.parametrize("name", [None, "a/b", "", "x" * 25])
def test_a_name_that_cannot_be_is_a_mistake(made: Lab, tmp_path: Path, name: Any) -> None:
    with pytest.raises(MisuseError, match="cannot be a name here"):
        made.vm(name, arch="x86_64", kernel=tmp_path / "kernel")


def test_a_segment_of_another_lab_is_a_mistake(made: Lab, tmp_path: Path) -> None:
    with Lab(factor=1) as other, pytest.raises(MisuseError, match="the segment lan is not of this lab"):
        made.vm("one", arch="x86_64", kernel=tmp_path / "kernel", segments=(other.segment("lan"),))


def qemu(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A QEMU that does something else."""
    program = directory / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -SEGV $$", "one: QEMU was killed by SIGSEGV"),
        ("exit 139", "one: QEMU was killed by SIGSEGV"),
        ("echo no such device >&2; exit 3", "one: QEMU exited with code 3"),
        ("exit 0", "one: QEMU ended at once"),
    ],
)
def test_how_qemu_ended_is_said(
    made: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    qemu(tmp_path, monkeypatch, script)
    vm = made.vm("one", arch="x86_64", kernel=tmp_path / "kernel", accel="tcg")
    with pytest.raises(InfrastructureError, match=said) as failed:
        vm.start()
    if "device" in script:
        assert "no such device" in failed.value.evidence


#: Opens its console and its monitor as QEMU does, and then finds a word that it does not know.
LATE = """
for word; do case $word in
pipe,id=console,path=*) console=${word##*path=};;
socket,id=qmp,path=*) monitor=${word##*path=};;
esac; done
exec 3<>$console.in 4<>$console.out
@PYTHON@ -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' $monitor
echo unknown CPU >&2
exit 1
"""


def test_qemu_that_takes_no_word_of_its_command_line_is_named(
    made: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu(tmp_path, monkeypatch, LATE.replace("@PYTHON@", sys.executable))
    vm = made.vm("one", arch="x86_64", kernel=tmp_path / "kernel", accel="tcg")
    with pytest.raises(InfrastructureError, match="one: QEMU exited with code 1") as failed:
        vm.start()
    assert "unknown CPU" in failed.value.evidence


def test_qemu_that_ends_later_is_the_hosts_failure(tmp_path: Path) -> None:
    for script, said in {
        "exit 3": "exited with code 3",
        "kill -9 $$": "killed by SIGKILL",
        "exit 0": "",
    }.items():
        process = Process(["sh", "-c", script], tmp_path / "log")
        assert said in process.killed()
        assert bool(process.killed()) is bool(said)


class Reset(VM):
    """A machine that has asked for a reset, as QEMU tells it."""

    @property
    def events(self) -> list[Event]:
        return [Event("SHUTDOWN", {"guest": True, "reason": "guest-reset"}, time.monotonic())]


def test_a_machine_that_asks_for_a_reset_is_told_from_one_that_is_off(made: Lab, tmp_path: Path) -> None:
    vm = made.vm("one", arch="x86_64", kernel=tmp_path / "kernel", accel="tcg")
    reset = Reset(vm.spec, {}, tmp_path)
    far, near = socket.socketpair()
    console = Console("one", near, tmp_path / "log", went=reset._went)
    far.close()
    with pytest.raises(
        MachineDied, match=r"one: asked for a reset, .* reboots=True gets while waiting for line"
    ):
        console.wait_line("never", timeout=5)
    console.close()


def test_a_reset_is_allowed_where_the_scenario_says_so(made: Lab, tmp_path: Path) -> None:
    words = {
        name: made.vm(name, arch="x86_64", kernel=tmp_path / "kernel", accel="tcg", reboots=reboots).argv
        for name, reboots in {"once": False, "again": True}.items()
    }
    assert "-no-reboot" in words["once"]
    assert "-no-reboot" not in words["again"]
