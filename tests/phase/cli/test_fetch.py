"""`phase fetch` beyond single attacks, which tests/hostile has: several artifacts, clocks, disks."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fixtures.hostile.provider import Provider, send
from fixtures.hostile.server import Answer, Asked, Server
from fixtures.hostile.world import ARCH, CHANNEL, World
from phase.cli import cli, main
from phase.errors import PhaseError
from phase.trust import ExpiredError, FormatError, floor

Fetch = Callable[..., Result]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def fetch(world: World, tmp_path: Path) -> Fetch:
    """Run `phase fetch` into `out`, from providers that answer so."""

    def fetch(*answers: Answer) -> Result:
        (tmp_path / "root.json").write_bytes(world.root)
        words = ["fetch", "--root", str(tmp_path / "root.json"), "--output", str(tmp_path / "out")]
        words += ["--channel", CHANNEL, "--arch", ARCH]
        servers = [Server(answer) for answer in answers]
        try:
            for server in servers:
                words += ["--provider", server.url]
            return CliRunner().invoke(cli, words)
        finally:
            for server in servers:
                server.__exit__(None, None, None)

    return fetch


@pytest.mark.parametrize("scheme", ["", "HTTP://"])
def test_an_address_is_read_as_on_a_kernel_line(world: World, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "root.json").write_bytes(world.root)
    words = ["fetch", "--root", str(tmp_path / "root.json"), "--output", str(tmp_path / "out")]
    words += ["--channel", CHANNEL, "--arch", ARCH]
    with Server(Provider(world).answer) as server:
        words += ["--provider", server.url.replace("http://", scheme)]
        result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, (result.output, result.exception)


def test_https_is_refused_with_the_reason(tmp_path: Path) -> None:
    words = ["fetch", "--root", "r", "--output", str(tmp_path), "--provider", "https://boot.example.org"]
    error = CliRunner().invoke(cli, words).exception
    assert isinstance(error, PhaseError)
    assert "does not fetch by https" in str(error)
    assert "signatures carry the trust" in str(error)


def test_a_liar_is_asked_for_one_artifact_only(world: World, fetch: Fetch) -> None:
    liar, honest = Provider(world), Provider(world)
    lied = threading.Event()
    asked: list[str] = []

    def wrong(request: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        asked.append(request.path)
        send(bytes(len(world.now[request.path])), request, connection)
        lied.set()
        return True

    def late(request: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        # Whoever is first is not to be left to chance.
        assert lied.wait(30)
        time.sleep(0.3)
        return send(world.now[request.path], request, connection)

    liar.on("/blobs/", wrong)
    honest.on("/blobs/", late)
    result = fetch(liar.answer, honest.answer)
    assert result.exit_code == 0, result.output
    assert set(asked) == {liar.blob("initramfs")}
    assert result.output.count("given up") == 1


def test_bytes_are_on_the_disk_before_anything_says_so(
    world: World, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order a power cut must find them: content, name, and last the timestamp that names it."""
    done: list[tuple[str, str]] = []
    parts: dict[str, str] = {}
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def renamed(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        where = os.readlink(f"/proc/self/fd/{dst_dir_fd}")
        done.append(("name", f"{where}/{target}"))
        if source.endswith(".part"):
            parts[f"{where}/{target}"] = f"{where}/{source}"
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    assert fetch(Provider(world).answer).exit_code == 0
    out = tmp_path / "out"
    timestamp = done.index(("name", str(out / "metadata/timestamp.json")))
    for name in ("kernel", "initramfs"):
        blob = out / Provider(world).blob(name).lstrip("/")
        content = done.index(("sync", parts[str(blob)]))
        named = done.index(("name", str(blob)))
        assert content < named < done.index(("sync", str(blob.parent)), named) < timestamp
    assert ("sync", str(out)) in done[timestamp:]


def test_a_full_disk_is_said(
    world: World, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        result = fetch(Provider(world).answer)
    assert isinstance(result.exception, PhaseError)
    assert str(result.exception).startswith(
        f"{tmp_path / 'out/blobs/sha256'} cannot be written: No space left on device."
    )
    assert "Make room there" in str(result.exception)
    # And where it is another file than those it is there for.
    (tmp_path / "out/metadata").write_bytes(b"")
    result = fetch(Provider(world).answer)
    assert (
        f"{tmp_path / 'out/metadata'} cannot be written: Not a directory. Something else has that name"
        in str(result.exception)
    )


def test_no_command_ends_in_a_traceback_for_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a\x1b/b")

    monkeypatch.setattr("phase.cli.cli", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "phase: /a /b: No space left on device. Make room there.\n"


def test_the_clock_does_not_go_back_behind_what_was_seen(world: World, fetch: Fetch, tmp_path: Path) -> None:
    """A machine whose battery is dead must not call fresh what had expired when it looked last."""
    assert fetch(Provider(world).answer).exit_code == 0
    verify = ["verify", str(tmp_path / "out"), "--root", str(tmp_path / "root.json")]
    verify += ["--channel", CHANNEL, "--arch", ARCH]
    assert CliRunner().invoke(cli, verify).exit_code == 0
    path = tmp_path / "out" / floor.name_of(floor.publisher(world.root))
    seen = floor.load(path)
    floor.save(path, seen._replace(time=seen.time + 8 * 86_400))
    for result in (CliRunner().invoke(cli, verify), fetch(Provider(world).answer)):
        assert isinstance(result.exception, ExpiredError)
        assert "timestamp.json expired at" in str(result.exception)


def test_a_floor_that_cannot_be_read_is_said_and_stops_no_other_publisher(
    world: World, fetch: Fetch, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    other = tmp_path / "out" / floor.name_of(floor.publisher(b"another root"))
    other.write_bytes(b"{")
    result = fetch(Provider(world).answer)
    assert result.exit_code == 0
    assert f"passed over: trust state {other} is damaged" in result.output
    path = tmp_path / "out" / floor.name_of(floor.publisher(world.root))
    path.write_bytes(b'{"root":true}')
    result = fetch(Provider(world).answer)
    assert isinstance(result.exception, FormatError)
    assert f"{path} is damaged" in str(result.exception)
    assert "Remove it only if you know that no older release can be offered here." in str(result.exception)
    path.unlink()
    assert fetch(Provider(world).answer).exit_code == 0
    assert other.read_bytes() == b"{"
