"""What a killed process leaves running: nothing, where the kernel helps."""

import os
import select
import subprocess
import sys

import pytest

from lab.children import dies_with_us

PARENT = """
import subprocess, time
from lab.children import dies_with_us
child = subprocess.Popen(["sleep", "60"], preexec_fn=dies_with_us())
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children so")
def test_a_child_goes_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        seen = os.pidfd_open(child)
        parent.kill()
        ready, _, _ = select.select([seen], [], [], 30)
        os.close(seen)
        assert ready, "the child is still there"


def test_elsewhere_it_is_a_child_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.children._libc", None)
    assert subprocess.run(["true"], preexec_fn=dies_with_us(), check=True).returncode == 0
