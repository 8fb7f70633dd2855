"""`phase serve` in this process: what it says, what it serves, and how it ends."""

import json
import logging
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fixtures.hostile.provider import Provider
from fixtures.hostile.server import Server
from fixtures.hostile.world import ARCH, CHANNEL, World
from phase.cli import serve
from phase.peer.relay import Relay
from phase.provider import listening, workers
from phase.provider.server import UPKEEP_SECONDS
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.phase.cli.conftest import Inside
from tests.phase.cli.services import when_ready


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "kernel").write_bytes(b"kernel")
    made = Repository.create(tmp_path / "signed", keys=ReleaseKeys.from_seed("ours"))
    made.add("stable", "x86_64", {"kernel": tmp_path / "kernel"}, cmdline="", release="1")
    made.publish()
    return tmp_path / "signed"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate that signs itself, and its key."""
    made = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    command = ["openssl", *words.split(), "-out", made[0], "-keyout", made[1]]
    subprocess.run(command, capture_output=True, check=True)
    return made


def _words(artifacts: Path) -> list[str]:
    words = ["serve", "--artifacts", str(artifacts), "--arch", "x86_64", "--no-mdns", "--no-dht"]
    return [*words, "--bind", "127.0.0.1", "--port", "0"]


class Heard(NamedTuple):
    """What a provider has said when it was ready, and its status."""

    line: str
    status: dict[str, Any]


Look = Callable[[], Heard]


@pytest.fixture
def look(capfdbinary: pytest.CaptureFixture[bytes]) -> Look:
    """Read where a provider serves, and ask it how it is."""

    def look() -> Heard:
        line = capfdbinary.readouterr().out.decode()
        (url,) = re.findall(r"http://127\.0\.0\.1:[0-9]+", line)
        with urllib.request.urlopen(f"{url}/status", timeout=20) as answer:
            return Heard(line.replace(url, "URL"), json.load(answer))

    return look


def test_a_repository_is_served_until_the_end_is_asked_for(
    inside: Inside, look: Look, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[None] = []
    with when_ready(tmp_path, monkeypatch, look) as heard:
        monkeypatch.setattr(serve, "end_in_time", lambda: ended.append(None))
        assert inside(*_words(repository)).code == 0
    said = heard.result()
    assert said.line == f"serving {repository} on URL\n"
    assert [each["release"] for each in said.status["releases"]] == ["1"]
    assert (said.status["mdns"]["running"], said.status["dht"]["running"]) == (False, False)
    assert ended == [None]


def test_files_without_a_signature_are_signed_here(
    inside: Inside, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files/stable/x86_64").mkdir(parents=True)
    (tmp_path / "files/stable/x86_64/kernel").write_bytes(b"kernel")
    told: list[str] = []
    state = tmp_path / "state"
    monkeypatch.setattr(serve, "note", told.append)
    with when_ready(tmp_path, monkeypatch, look) as heard:
        assert inside(*_words(tmp_path / "files"), "--state", str(state), "--json").code == 0
    said = heard.result()
    assert json.loads(said.line) == {"directory": str(state / "repository/tree"), "urls": ["URL"]}
    assert said.status["releases"][0]["artifacts"] == {"kernel": 6}
    assert any("stable/x86_64" in line for line in told)


def _asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `workers.run` is asked for, in place of doing it."""
    found: dict[str, Any] = {}

    def run(count: int, work: workers.Work, **more: Any) -> None:
        found.update(more, count=count, work=work)

    monkeypatch.setattr(workers, "run", run)
    return found


def test_several_processes_share_a_socket_and_say_once_that_they_serve(
    inside: Inside, repository: Path, monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    asked = _asked(monkeypatch)
    assert inside(*_words(repository), "--processes", "2") == (0, b"", "")
    assert (asked["count"], asked["places"].serving()) == (2, False)
    asked["ready"]()
    start, _, port = capfdbinary.readouterr().out.decode().rstrip("\n").rpartition(":")
    assert start == f"serving {repository} on http://127.0.0.1"
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20):
        pass
    asked["ending"]()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=20)


def test_a_bad_repository_starts_no_processes(
    inside: Inside, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked(monkeypatch)
    opened = listening.listen(["127.0.0.1"], 0)
    monkeypatch.setattr(listening, "listen", lambda *_: opened)
    (repository / "metadata/timestamp.json").write_bytes(b"{")
    done = inside(*_words(repository), "--processes", "2")
    assert (done.code, done.out, asked) == (1, b"", {})
    assert done.err.startswith("phase: ")
    opened[0].close()


def test_one_process_of_several_keeps_and_announces_and_with_tls_none(
    inside: Inside,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificate: tuple[str, str],
) -> None:
    told: list[dict[str, Any]] = []

    async def note(_: Path, **more: Any) -> None:
        told.append(more)

    monkeypatch.setattr("phase.provider.server.serve", note)
    asked = _asked(monkeypatch)
    words = ["serve", "--artifacts", str(repository), "--bind", "127.0.0.1", "--port", "0"]
    more = ["--processes", "2", "--dht", "127.0.0.1:1", "--channel", "testing"]
    for tls in ([], ["--tls", *certificate]):
        assert inside(*words, *more, *tls).code == 0
        for number in range(2):
            asked["work"](number)
        asked["ending"]()
    first, second, secret, _ = told
    assert [each["mdns"] for each in told] == [True, False, False, False]
    assert (first["dht"].peers, second["dht"], secret["dht"]) == ((("127.0.0.1", 1),), None, None)
    assert [first["row"].number, second["row"].number] == [0, 1]
    assert first["identity"] == second["identity"] != secret["identity"]
    assert (len(first["identity"]), first["channel"], first["ready"]) == (8, "testing", None)
    assert (first["every"], first["upkeep"]) == (UPKEEP_SECONDS, None)


def test_a_mirror_has_what_it_follows_before_it_serves_and_looks_again(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    async def note(_: Path, **more: Any) -> None:
        told.append(more)
        more["listeners"][0].close()

    monkeypatch.setattr("phase.provider.server.serve", note)
    monkeypatch.setattr(workers, "run", lambda _, work, **__: work(0))
    (tmp_path / "upstream").mkdir()
    world = World(tmp_path / "upstream")
    (tmp_path / "root.json").write_bytes(world.root)
    with Server(Provider(world).answer) as server:
        follow = ("--follow", server.url, "--root", str(tmp_path / "root.json"), "--every", "7")
        done = inside(*_words(tmp_path / "mirror"), *follow, "--mirror", f"{CHANNEL}/{ARCH}")
        assert done.code == 0, done
        for name in ("timestamp.json", "1.root.json"):
            assert (tmp_path / "mirror/metadata" / name).read_bytes() == world.now[f"/metadata/{name}"]
        asked = len(server.asked)
        told[0]["upkeep"]()
        assert len(server.asked) > asked
    assert told[0]["every"] == 7.0


def test_a_certificate_without_its_key_is_named(
    inside: Inside, repository: Path, certificate: tuple[str, str]
) -> None:
    for path in certificate:
        Path(path).write_text("neither")
    done = inside("serve", "--artifacts", str(repository), "--tls", *certificate)
    assert (done.code, done.out) == (1, b"")
    assert f"{certificate[0]} and {certificate[1]} are not a certificate and its key" in done.err


def test_where_standard_output_is_full_the_log_says_where_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        with open(1, "w", closefd=False) as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            serve._ready(tmp_path, ["http://one", "http://two"], as_json=False)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(full)
    (said,) = caplog.messages
    assert said.startswith(f"serving {tmp_path} on http://one and http://two; standard output cannot be")


@contextmanager
def no_handlers() -> Iterator[None]:
    """Logging as in a process that has just begun."""
    handlers, level = logging.root.handlers, logging.root.level
    logging.root.handlers = []
    logging.root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.root.handlers = handlers
        logging.root.setLevel(level)


def test_the_log_is_lines_on_standard_error(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with no_handlers():
        serve.log_to_stderr()
        logging.getLogger("phase.part").info("it %s", "works")
        logging.getLogger("phase.part").debug("in detail")
    assert capfdbinary.readouterr() == (b"", b"INFO phase.part: it works\n")


def test_a_closed_descriptor_is_no_place_for_a_socket() -> None:
    kept = os.dup(0)
    os.close(0)
    try:
        with no_handlers():
            serve.log_to_stderr()
        assert os.readlink("/proc/self/fd/0") == os.devnull
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_as_many_files_as_are_allowed_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = before[1] if before[1] != resource.RLIM_INFINITY else 1 << 20
    try:
        for soft, after in ((256, min(most, 16_384)), (most, most)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
            serve._allow_many_files()
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (after, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_end_that_takes_too_long_is_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(serve, "END_SECONDS", 0.01)
    monkeypatch.setattr(os, "_exit", codes.append)
    serve.end_in_time()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            assert thread.daemon
            thread.join()
    assert codes == [1]
    assert "this process does not end within 0 s" in caplog.text


def test_a_relay_is_for_those_who_are_named() -> None:
    assert serve._relay(()) is None
    assert isinstance(serve._relay(("open",)), Relay)
