"""A failed scenario's machines stay on for a person, who attaches; then nothing is left."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from scenarios import lab_guest
from scenarios.test_lab_clean import ROOT, heed_ctrl_c, leftovers, wait_gone

SCENARIO = """
from pathlib import Path

def test_fails(lab):
    vm = lab.vm("one", arch={arch!r}, kernel=Path({kernel!r}), initrd=Path({initrd!r}), memory=256,
                segments=(lab.segment("lan"),))
    vm.start()
    vm.shell()
    Path("pid").write_text(str(vm.pid))
    assert not "what it should be"
"""


@pytest.mark.lab(vcpus=0.7, memory=512)
@pytest.mark.usefixtures("lab")  # for its lease
def test_a_failed_topology_is_held(arch: str, tmp_path: Path) -> None:
    kernel, initrd = lab_guest.build(arch, tmp_path)
    source = SCENARIO.format(arch=arch, kernel=str(kernel), initrd=str(initrd))
    (tmp_path / "test_inner.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout = 60\n")
    leases = {"LAB_LEASES": str(tmp_path / "leases")}
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="t-"))
        said = stack.enter_context((tmp_path / "said").open("wb"))
        environment = os.environ | {"TMPDIR": base, "PYTHONPATH": str(ROOT)} | leases
        runner = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "lab.plugin",
                "--lab-hold",
                "--lab-live",
                "test_inner.py",
            ],
            cwd=tmp_path,
            env=environment,
            preexec_fn=heed_ctrl_c,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            until_said(runner, tmp_path / "said", "python -m lab console one")
            person = subprocess.Popen(
                [sys.executable, "-m", "lab", "console", "one"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(person.kill)
            assert person.stdin is not None
            assert person.stdout is not None
            person.stdin.write(b"@bye\necho it is still $((6 * 7))\n")
            person.stdin.flush()
            seen = b""
            while b"it is still 42" not in seen:
                data = os.read(person.stdout.fileno(), 4096)
                assert data, seen
                seen += data
            person.stdin.write(b"\x1d")
            person.stdin.close()
            assert person.wait(30) == 0
            person.stdout.close()
            runner.send_signal(signal.SIGINT)
            assert runner.wait(60) == 1
        finally:
            runner.kill()
            runner.wait()
        text = (tmp_path / "said").read_text()
        for words in (
            "> ",
            "what it should be",
            "one: kernel ok",
            "one: init ok",
            "lab: let go",
            "1 failed",
        ):
            assert words in text, text
        assert "python -m pytest test_inner.py::test_fails" in text
        wait_gone([int((tmp_path / "pid").read_text())])
        assert not leftovers(Path(base))


def until_said(runner: subprocess.Popen[bytes], path: Path, words: str) -> None:
    deadline = time.monotonic() + 120
    while words not in path.read_text():
        assert runner.poll() is None, path.read_text()
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.1)
