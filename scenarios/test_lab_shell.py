"""The lab's shell on real guests: what hangs, what is missing, what is large, what starts anew."""

import os
import time
from pathlib import Path

import pytest

from lab.errors import MachineDied, WaitTimeout
from lab.topology import Lab
from scenarios import lab_guest

_NO_PROC = """#!/bin/sh
mount -t devtmpfs dev /dev
echo no-proc-here
while :; do setsid sh </dev/console >/dev/console 2>&1; done
"""


@pytest.mark.lab(memory=256, seconds=20)
def test_a_command_that_hangs_is_ended_and_the_shell_goes_on(lab: Lab, arch: str, tmp_path: Path) -> None:
    kernel, initrd = lab_guest.build(arch, tmp_path)
    vm = lab.vm("one", arch=arch, memory=256, kernel=kernel, initrd=initrd)
    vm.start()
    vm.wait_mark("init")
    shell = vm.shell()
    with pytest.raises(WaitTimeout, match="it was ended"):
        shell.run("echo before; (sleep 1000)", timeout=2)
    assert shell.succeed("ps | grep '[s]leep 1000' || echo gone") == "gone"
    assert vm.shell().succeed("echo second") == "second"
    assert shell.succeed("echo first again") == "first again"


@pytest.mark.lab(memory=256, seconds=30)
@pytest.mark.parametrize("port", [False, True], ids=["console", "port"])
def test_files_of_a_hundred_kilobytes(lab: Lab, arch: str, tmp_path: Path, port: bool) -> None:
    """Over the port by itself where there is one: the console hears next to nothing of it."""
    kernel, initrd = lab_guest.build(arch, tmp_path)
    vm = lab.vm("one", arch=arch, memory=256, kernel=kernel, initrd=initrd, port=port)
    vm.start()
    vm.wait_mark("init")
    shell = vm.shell()
    data = os.urandom(100_000)
    before, begun = vm.console.size, time.monotonic()
    shell.put("/tmp/file", data)
    assert shell.get("/tmp/file") == data
    print(f"there and back in {time.monotonic() - begun:.1f} s")
    if port:
        assert vm.console.size - before < 10_000


@pytest.mark.lab(memory=256, seconds=20)
def test_a_guest_without_proc_has_a_shell(lab: Lab, arch: str, tmp_path: Path) -> None:
    kernel, _ = lab_guest.build(arch, tmp_path)
    initrd = tmp_path / "bare.cpio"
    lab_guest.pack(arch, initrd, init=_NO_PROC, modules=())
    vm = lab.vm("one", arch=arch, memory=256, kernel=kernel, initrd=initrd)
    vm.start()
    vm.console.wait_line("no-proc-here", timeout=120)
    shell = vm.shell()
    assert shell.succeed("ls /proc") == ""
    assert shell.run("exit 5").code == 5


@pytest.mark.lab(memory=256, seconds=30)
def test_a_guest_that_asks_for_a_reset(lab: Lab, arch: str, tmp_path: Path) -> None:
    """It starts anew where the scenario allows it; elsewhere it is off, and why is said."""
    kernel, initrd = lab_guest.build(arch, tmp_path)
    again = lab.vm("again", arch=arch, memory=128, kernel=kernel, initrd=initrd, reboots=True)
    again.start()
    again.wait_mark("init")
    lines = len(again.console.lines)
    again.console.send("reboot -f\n")
    again.console.wait_line(r'guest-mark .*"step":"init"', timeout=120, since=lines)
    assert again.shell().succeed("echo anew") == "anew"
    again.stop()
    once = lab.vm("once", arch=arch, memory=128, kernel=kernel, initrd=initrd)
    once.start()
    once.wait_mark("init")
    once.console.send("reboot -f\n")
    with pytest.raises(MachineDied, match=r"once: asked for a reset, .* while waiting for line"):
        once.console.wait_line("never", timeout=120)
