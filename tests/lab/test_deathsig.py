"""What a killed process leaves running: nothing, where the kernel helps."""

import os
import select
import subprocess
import sys

import pytest

from lab import deathsig

PARENT = """
import subprocess, time
from lab import deathsig
child = subprocess.Popen(["sleep", "60"], preexec_fn=deathsig.bound())
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
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert subprocess.run(["true"], preexec_fn=deathsig.bound(), check=True).returncode == 0
