import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phase.cli import init
from phase.errors import PhaseError

ROOT = Path(__file__).parents[3]
#: A user without an entry in passwd. Imports come first: that user may not read the checkout.
_STRANGER = (
    "import os, sys, {imports}\n"
    "if {change} and os.geteuid() == 0: os.setgroups([]); os.setgid(12345); os.setuid(12345)\n"
    "import pwd\n"
    "def absent(user): raise KeyError(user)\n"
    "pwd.getpwuid = absent\n"
    "{run}\n"
)
_INIT = ("phase.cli, phase.cli.init, phase.identity", "phase.cli.main()", True)
#: It starts interpreters, which that user may not read either.
_DOCTOR = ("lab.cli", "sys.exit(lab.cli.main(['doctor']))", False)


def _stranger(
    what: tuple[str, str, bool], *words: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    imports, run, change = what
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code = path + _STRANGER.format(imports=imports, run=run, change=change)
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("home", "words"),
    [
        ({}, "has no entry in passwd"),
        ({"HOME": "/nonexistent"}, "/nonexistent"),
        ({"HOME": "/proc/self"}, "/proc/self"),
        ({"HOME": "/dev/null"}, "/dev/null"),
        ({"PHASE_STATE": "/proc/x"}, "/proc/x"),
    ],
    ids=["none", "absent", "not writable", "not a directory", "state"],
)
def test_no_home_no_passwd_entry_is_one_line_that_names_phase_state(
    home: dict[str, str], words: str
) -> None:
    done = _stranger(_INIT, "init", **home)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("phase: no ")
    assert words in line
    assert "Set PHASE_STATE" in line


def test_no_home_no_passwd_entry_and_phase_state_set_makes_an_identity(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-m", "phase", "init", "--json"],
        env={"PATH": os.environ["PATH"], "PHASE_STATE": str(state), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["identity"] == str(state / "identity.json")


def test_no_home_no_passwd_entry_the_doctor_says_it_in_one_line() -> None:
    done = _stranger(_DOCTOR)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("lab: no directory for images: no HOME")
    assert "PHASE_CACHE" in line
    assert "PHASE_STATE" in line


def test_a_relative_xdg_state_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("PHASE_STATE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert init.default_state() == tmp_path / ".local/state/phase"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert init.default_state() == tmp_path / "xdg/phase"


def test_a_state_directory_that_is_full_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PhaseError, match="Set PHASE_STATE"):
        init.identity_in(tmp_path / "file")
