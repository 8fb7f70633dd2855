"""The units of the Debian package: systemd reads them, and they are as closed as they are meant to be."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).parents[2] / "debian"
UNITS = ("phase-serve.service", "phase-serve.socket", "phase-refresh.service", "phase-refresh.timer")
#: On systemd's scale from 0 to 10; a service without any protection has 9.6.
EXPOSURE = 2.0


@pytest.fixture
def units(tmp_path: Path) -> Path:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    for name in UNITS:
        # The command is not installed here, and a unit must name one that is.
        text = (DEBIAN / f"phase.{name}").read_text().replace("/usr/bin/phase", "/usr/bin/env")
        (tmp_path / name).write_text(text)
    return tmp_path


def test_systemd_reads_them(units: Path) -> None:
    argv = ["systemd-analyze", "verify", *(str(units / name) for name in UNITS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    # It may complain about units of this machine; about ours it must not.
    assert [line for line in done.stderr.splitlines() if "phase" in line] == []


@pytest.mark.parametrize("name", ["phase-serve.service", "phase-refresh.service"])
def test_they_are_closed(units: Path, name: str) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(units / name)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE


def test_each_user_has_the_home_that_it_is_told() -> None:
    """systemd-sysusers makes none, and the README has people work there before a service starts."""
    users = re.findall(r'^u (\S+) - ".*" (\S+)$', (DEBIAN / "phase.sysusers").read_text(), re.MULTILINE)
    made = (DEBIAN / "phase.tmpfiles").read_text().splitlines()
    assert {name for name, _ in users} == {"phase", "phase-publish"}
    for name, home in users:
        assert f"d {home} 0755 {name} {name} -" in made
