"""`phase provider`, for people and for scripts."""

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase.cli.provider import command
from phase.discovery import interfaces
from phase.discovery.mdns import browser
from phase.fetch import FetchError
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.phase.cli.statuses import said

# Others on this machine may be testing too.
CHANNEL = f"t{secrets.token_hex(4)}"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A provider, advertised on loopback."""
    (tmp_path / "kernel").write_bytes(b"kernel")
    repository = Repository.create(tmp_path / "repository", keys=ReleaseKeys.from_seed("provider commands"))
    repository.add(CHANNEL, "x86_64", {"kernel": tmp_path / "kernel"}, release="1.2.3")
    repository.publish()
    words = [sys.executable, "-m", "phase", "serve", "--artifacts", str(repository.directory), "--port", "0"]
    with subprocess.Popen([*words, "--bind", "127.0.0.1"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [each for each in interfaces.interfaces() if each.loopback]
    monkeypatch.setattr(browser, "interfaces", lambda: here)


def test_status(url: str) -> None:
    told = CliRunner().invoke(command, ["status", "--addr", url])
    assert told.exit_code == 0
    assert f"{CHANNEL}/x86_64  1.2.3  version 1" in told.output
    found = json.loads(CliRunner().invoke(command, ["status", "--addr", url, "--json"]).output)
    (release,) = found["releases"]
    assert (release["channel"], release["release"], release["artifacts"]) == (
        CHANNEL,
        "1.2.3",
        {"kernel": 6},
    )


def test_status_of_a_web_server_with_an_export(tmp_path: Path) -> None:
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split(" port ")[1].split()[0]
            told = CliRunner().invoke(command, ["status", "--addr", f"http://127.0.0.1:{port}"])
        finally:
            process.terminate()
    assert isinstance(told.exception, FetchError)
    assert f":{port} has no /status. A web server with an exported repository has none" in str(
        told.exception
    )


def test_list(url: str) -> None:
    options = ["list", "--channel", CHANNEL, "--arch", "amd64", "--timeout", "5"]
    told = CliRunner().invoke(command, options)
    assert told.output.startswith(f"{url}: ok; up ")
    (line,) = CliRunner().invoke(command, [*options, "--json"]).output.splitlines()
    found = json.loads(line)
    assert (found["url"], found["source"], found["answers"]) == (url, "mdns", True)
    assert CliRunner().invoke(command, ["list", "--channel", "none", "--timeout", "0.2"]).output == ""


def test_list_of_those_that_are_named(url: str) -> None:
    dead = "http://127.0.0.1:9"
    told = CliRunner().invoke(command, ["list", "--addr", dead, "--addr", url, "--json"])
    found = [json.loads(line) for line in told.output.splitlines()]
    assert [(one["url"], one["answers"]) for one in found] == [(dead, False), (url, True)]


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Something that says this once, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_what_a_provider_says_is_printed_harmlessly() -> None:
    with answering(said(repository_problem="\x1b[2J")) as url:
        told = CliRunner().invoke(command, ["status", "--addr", url])
    assert told.exit_code == 0
    assert "\x1b" not in told.output


STRANGE = [
    b"<html>",
    b"[]",
    b"{}",
    b"\xff",
    b"[" * 9999,
    b'"\x1b[2J"',
    said(releases=7),
    said(releases=[1]),
    said(releases=[{}]),
    said(uptime_seconds=10**400),
    said(uptime_seconds=float("nan")),
    said(requests=10**400),
    said(bytes_sent=10**400),
    said(requests=-1),
    said(mdns=None),
]


@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
def test_one_that_is_no_provider_does_not_end_the_list(body: bytes) -> None:
    with answering(body) as url, answering(said()) as other:
        told = CliRunner().invoke(command, ["list", "--addr", url, "--addr", other, "--json"])
    assert [json.loads(line)["answers"] for line in told.output.splitlines()] == [False, True]


@pytest.mark.parametrize("body", STRANGE, ids=range(len(STRANGE)))
def test_what_is_no_provider(body: bytes) -> None:
    """Whatever it answers, there is one error with a reason, and nothing of it reaches the terminal."""
    with answering(body) as url:
        told = CliRunner().invoke(command, ["status", "--addr", url])
    assert told.exit_code == 1
    assert isinstance(told.exception, FetchError)
    assert told.output == ""
