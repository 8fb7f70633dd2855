"""A project of somebody else, with the lab from a wheel, drives Debian's own installer."""

import json
import re
import shutil
from pathlib import Path

import pytest

from lab.clean import cache_directory
from tests import wheel

_EXAMPLE = wheel.PROJECT / "docs/examples/debian-installer"
#: What others have beside it.
_PLUGINS = (
    "pytest-randomly",
    "pytest-cov",
    "coverage",
    "pytest-rerunfailures",
    "pytest-subtests",
    "packaging",
)
_KILLED = """
import os, signal
from pathlib import Path

def test_killed(lab):
    if Path("kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.lab(vcpus=1.5, memory=2048, seconds=300)
@pytest.mark.usefixtures("lab")  # for its lease
def test_drives_debians_installer(arch: str, tmp_path: Path) -> None:
    """Beside other plugins; and what it says of a test whose worker is killed is not its old pass."""
    python = wheel.install(tmp_path, *_PLUGINS)
    project = tmp_path / "project"
    shutil.copytree(_EXAMPLE, project)
    (project / "conftest.py").unlink()
    (project / "test_killed.py").write_text(_KILLED)
    # Its probe of accelerators takes its time, and has been made.
    kept = {"PHASE_CACHE": str(cache_directory())}
    words = ("-m", "pytest", "-v", "-n", "2", "--cov=.", "--reruns=1", "-p", "no:cacheprovider")
    done = wheel.run(python, project, *words, "-k", f"{arch} or killed", more=kept)
    assert re.search(r"^=+ 3 passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert _outcomes(python, project)["test_killed"] == "passed"
    (project / "kill").touch()
    wheel.run(python, project, *words, "-k", "killed", "--reruns=0", more=kept)
    assert _outcomes(python, project) == {"test_killed": "error"}


def _outcomes(python: Path, project: Path) -> dict[str, str]:
    made = wheel.run(python, project, "-m", "lab", "report", "--no-html")
    assert made.returncode == 0, made.stderr
    told = json.loads((project / "reports/out/summary.json").read_text())
    return {line["scenario"]: line["outcome"] for line in told}
