"""`phase update` as a command: what it says, and what it does to the machine."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phase.boot import update
from phase.boot.fake import StartedError
from phase.cli import cli
from phase.errors import PhaseError
from phase.release.repository import Repository
from tests.phase.boot.conftest import ARCH, Boot, Publish, Serve


@pytest.fixture
def repository(publish: Publish, tmp_path: Path) -> Repository:
    """With a release that runs: `running` is what the system has of it."""
    made: Repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "running", symlinks=True)
    return made


@pytest.fixture
def system(boot: Boot, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """The machine in memory is the one that the command runs on."""
    monkeypatch.setattr(update, "RELEASE", tmp_path / "running")
    monkeypatch.setattr(update, "Running", lambda release: boot.machine)
    # As root it would tell this host's consoles.
    monkeypatch.setenv("PHASE_MARKS", "")
    return boot


def add(repository: Repository, tmp_path: Path) -> None:
    """Publish one more release."""
    (tmp_path / "r-rootfs").write_bytes(b"second" * 900)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="2.0.0")
    repository.publish()


def run(system: Boot, url: str, *words: str) -> Result:
    system.prepared(url, words="phase.mdns=off")
    return CliRunner().invoke(cli, ["update", "--timeout", "20", *words])


def test_a_newer_release_is_told_and_not_started(
    system: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    add(repository, tmp_path)
    url = serve()
    found = run(system, url)
    assert found.exit_code == 0, found.output
    assert found.stdout == "release 2.0.0 (version 2) is newer; `phase update --now` starts it\n"
    assert json.loads(run(system, url, "--json").stdout) == {
        "newer": True,
        "version": 2,
        "release": "2.0.0",
    }
    assert system.machine.did == []


@pytest.mark.parametrize("now", [(), ("--now",)])
def test_the_newest_release_runs_on(system: Boot, serve: Serve, now: tuple[str, ...]) -> None:
    url = serve()
    found = run(system, url, *now)
    assert found.exit_code == 0, found.output
    assert found.stdout == "this system is the newest release\n"
    assert json.loads(run(system, url, "--json", *now).stdout)["newer"] is False
    assert system.machine.did == []


def test_with_now_the_newer_release_is_started(
    system: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    add(repository, tmp_path)
    with pytest.raises(StartedError):
        run(system, serve(), "--now")
    assert system.machine.did == ["load", "measure", "start"]


@pytest.mark.parametrize("now", [(), ("--now",)])
def test_where_nobody_answers_the_system_runs_on(system: Boot, now: tuple[str, ...]) -> None:
    found = run(system, "http://127.0.0.1:9", *now)
    assert found.exit_code == 1
    assert isinstance(found.exception, PhaseError)
    assert found.stdout == ""
    assert system.machine.did == []
