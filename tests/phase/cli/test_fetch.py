"""`phase fetch` beyond single attacks, which tests/hostile has: several artifacts, clocks, disks."""

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
from phase.cli import cli

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
