"""My own kernel and initrd, started by the lab."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ARCH = os.environ.get("ARCH", "x86_64")  # or arm64


@pytest.mark.lab(memory=256, seconds=20)
def test_it_boots_and_answers(lab):
    vm = lab.vm("mine", arch=ARCH, memory=256, kernel=HERE / "kernel", initrd=HERE / "initrd")
    vm.start()
    vm.console.wait_line("my system is ready", timeout=120)
    shell = vm.shell()
    assert shell.succeed("cat /proc/1/comm") == "init"
    assert "console=" in shell.succeed("cat /proc/cmdline")
