"""`phase discover`, for people and for scripts: real multicast DNS, on loopback only."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phase.cli import main
from phase.cli.discover import command
from phase.discovery import DiscoveryError, interfaces
from phase.discovery.mdns import browser
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

# Others on this machine may be testing too.
CHANNEL = f"t{secrets.token_hex(4)}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "kernel").write_bytes(b"kernel")
    repository = Repository.create(tmp_path / "repository", keys=ReleaseKeys.from_seed("discover command"))
    repository.add(CHANNEL, "x86_64", {"kernel": tmp_path / "kernel"}, release="1.2.3")
    repository.publish()
    return repository.directory


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [each for each in interfaces.interfaces() if each.loopback]
    monkeypatch.setattr(browser, "interfaces", lambda: here)


@contextmanager
def advertised(repository: Path) -> Iterator[str]:
    words = [sys.executable, "-m", "phase", "serve", "--artifacts", str(repository), "--port", "0"]
    with subprocess.Popen([*words, "--bind", "127.0.0.1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def discover(*more: str) -> Result:
    return CliRunner().invoke(command, ["--channel", CHANNEL, "--arch", "amd64", *more])


def test_every_provider_is_told(repository: Path) -> None:
    with advertised(repository) as first, advertised(repository) as second:
        wanted = {first, second}
        until = time.monotonic() + 30
        while True:
            told = discover("--timeout", "3", "--json")
            found = [json.loads(line) for line in told.output.splitlines()] if not told.exception else []
            if {one["url"] for one in found} == wanted or time.monotonic() > until:
                break
        assert (told.exit_code, {one["url"] for one in found}) == (0, wanted)
        assert len(found) == 2
        assert {(one["channel"], one["arch"], one["version"]) for one in found} == {(CHANNEL, "x86_64", 1)}
        assert all(one["source"] == "mdns" and len(one["id"]) == 8 for one in found)
        told = discover("--timeout", "3")
        assert told.exit_code == 0
        for one in found:
            assert f"{one['url']}  {CHANNEL}/x86_64  version 1  id {one['id']}\n" in told.output


def test_the_first_ends_it(repository: Path) -> None:
    with ExitStack() as stack:
        wanted = {stack.enter_context(advertised(repository)) for _ in range(2)}
        begun = time.monotonic()
        told = discover("--first", "--json", "--timeout", "60")
        assert time.monotonic() - begun < 50
        assert told.exit_code == 0
        (line,) = told.output.splitlines()
        assert json.loads(line)["url"] in wanted


def test_nobody_is_an_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = discover("--timeout", "0.2")
    assert isinstance(told.exception, DiscoveryError)
    assert told.output == ""
    for options, code, said in (
        (["--timeout", "0.2"], 1, f"no provider of {CHANNEL}/x86_64 answered within 0.2 s"),
        (["--timeout", "0"], 2, "--timeout"),
        (["--arch", "vax", "--timeout", "0.2"], 1, "vax"),
    ):
        monkeypatch.setattr(
            sys, "argv", ["phase", "discover", "--channel", CHANNEL, "--arch", "x86_64", *options]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        error = capsys.readouterr().err
        assert (ended.value.code, said in error) == (code, True), error
