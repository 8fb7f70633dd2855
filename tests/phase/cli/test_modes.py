"""`--mode`: what a provider and a node leave undone."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phase.cli import cli
from phase.errors import PhaseError
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository


class _AskedError(Exception):
    """In place of serving: what it would have been told."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told


def stop(*_: object, **told: Any) -> None:
    for listener in told.get("listeners", ()):
        listener.close()
    raise _AskedError(told)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    (tmp_path / "kernel").write_bytes(b"kernel")
    made = Repository.create(tmp_path / "r", keys=ReleaseKeys.from_seed("ours"))
    made.add("stable", "x86_64", {"kernel": tmp_path / "kernel"}, cmdline="", release="1")
    made.publish()
    return str(tmp_path / "r")


@pytest.mark.parametrize(("mode", "dht", "mdns"), [("internet", True, True), ("local", False, True)])
def test_a_provider(
    repository: str, monkeypatch: pytest.MonkeyPatch, mode: str, dht: bool, mdns: bool
) -> None:
    monkeypatch.setattr("phase.provider.server.serve", stop)
    words = ["serve", "--artifacts", repository, "--bind", "127.0.0.1", "--port", "0"]
    result = CliRunner().invoke(cli, [*words, "--mode", mode, "--dht", "192.0.2.1:1"])
    assert isinstance(result.exception, _AskedError), result.output
    told = result.exception.told
    assert (told["dht"] is not None, told["mdns"]) == (dht, mdns)
    assert ("--dht is not used in local mode" in result.output) != dht


@pytest.mark.parametrize(("mode", "dht"), [("internet", (("192.0.2.1", 1),)), ("local", ())])
def test_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, dht: object) -> None:
    monkeypatch.setattr("phase.node.daemon.Options", stop)
    words = ["node", "--state", str(tmp_path), "--open", "--mode", mode, "--dht", "192.0.2.1:1"]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, _AskedError), result.output
    assert (result.exception.told["dht"], result.exception.told["mdns"]) == (dht, True)


@pytest.mark.parametrize("command", ["serve", "node"])
def test_private_mode_answers_nobody(repository: str, tmp_path: Path, command: str) -> None:
    more = {"serve": ["--artifacts", repository], "node": ["--state", str(tmp_path / "state"), "--open"]}
    result = CliRunner().invoke(cli, [command, *more[command], "--mode", "private"])
    assert isinstance(result.exception, PhaseError)
    assert "private mode answers nobody" in str(result.exception)
    assert not (tmp_path / "state").exists()
