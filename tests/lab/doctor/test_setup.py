"""The set-up installs what is missing, once, or says exactly what a person has to type."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.doctor.needs import Need
from lab.doctor.setup import Failed, Host, ensure_packages, ensure_tox, install_command
from lab.doctor.tools import Tool

ROOT = Host(debian=True, name="Debian", become=())
MISSING = Tool(Need("zstd", "compresses", ("zstd",), commands=("zstd",)), "missing", "", "")
THERE = MISSING._replace(state="ok", where="/usr/bin/zstd")


class Runner:
    """Records commands; ends each with the next of the given statuses, then with 0."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.ran: list[str] = []

    def __call__(self, argv: Sequence[str]) -> int:
        self.ran.append(" ".join(argv))
        return self.statuses.pop(0) if self.statuses else 0


def test_a_ready_machine_runs_nothing() -> None:
    run = Runner()
    ensure_packages([THERE], ROOT, run=run, again=lambda: [THERE])
    assert run.ran == []


def test_what_is_missing_is_installed() -> None:
    run = Runner()
    ensure_packages([MISSING], ROOT, run=run, again=lambda: [THERE])
    (line,) = run.ran
    assert line.startswith("apt-get")
    assert line.endswith("install -y --no-install-recommends zstd")


def test_a_machine_without_lists_updates_them_first() -> None:
    run = Runner(100)
    ensure_packages([MISSING], ROOT, run=run, again=lambda: [THERE])
    assert [("update" in line, "install" in line) for line in run.ran] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_without_root_one_exact_command_is_printed() -> None:
    run = Runner()
    with pytest.raises(Failed) as failed:
        ensure_packages([MISSING], ROOT._replace(become=None), run=run, again=lambda: [THERE])
    assert str(failed.value).splitlines()[-1].strip() == (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends zstd"
    )
    assert run.ran == []


def test_sudo_goes_before_every_command() -> None:
    run = Runner(100)
    here = ROOT._replace(become=("sudo", "-n"))
    ensure_packages([MISSING], here, run=run, again=lambda: [THERE])
    assert all(line.startswith("sudo -n apt-get") for line in run.ran)


def test_another_distribution_is_told_what_it_lacks() -> None:
    with pytest.raises(Failed, match=r"(?s)Fedora.*zstd: compresses \(Debian: zstd\)"):
        ensure_packages([MISSING], Host(False, "Fedora 43", ()), run=Runner(), again=lambda: [THERE])


def test_what_apt_cannot_do_is_said() -> None:
    with pytest.raises(Failed, match="apt-get failed"):
        ensure_packages([MISSING], ROOT, run=Runner(100, 0, 100), again=lambda: [THERE])


def test_an_old_copy_that_hides_the_new_one_is_said() -> None:
    with pytest.raises(Failed, match="may come first on PATH"):
        ensure_packages([MISSING], ROOT, run=Runner(), again=lambda: [MISSING])


def test_root_needs_no_sudo() -> None:
    assert "sudo" not in install_command(["a", "b"], ())


def test_an_environment_without_python_is_made_anew(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/no/such/python")
    run = Runner()
    ensure_tox(venv, run=run)
    assert "-m venv --clear" in run.ran[0]
    assert "-m pip install" in run.ran[1]
    assert "tox-uv" in run.ran[1]


def test_no_network_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="pip could not install tox"):
        ensure_tox(tmp_path / "venv", run=Runner(0, 1))
