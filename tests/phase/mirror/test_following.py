"""`phase serve --follow`: a mirror that runs."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fixtures.hostile.provider import Provider
from fixtures.hostile.server import Server
from fixtures.hostile.world import World
from phase.cli import cli
from tests.phase.provider.service import get, serving


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def root(world: World, tmp_path: Path) -> str:
    (tmp_path / "root.json").write_bytes(world.root)
    return str(tmp_path / "root.json")


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_is_published_is_served_on(world: World, root: str, tmp_path: Path) -> None:
    """Of both architectures, and the next release, too; when the provider has ended, it still serves."""
    provider = Provider(world)
    provider.files = dict(world.before)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Server(provider.answer))
        words = ("--follow", upstream.url, "--root", root, "--every", "1", "--no-dht")
        with serving(tmp_path / "mirror", *words) as (url, _):

            def release(arch: str) -> str:
                return str(
                    json.loads(get(f"{url}/stable/{arch}/manifest.json"))["signed"]["x-phase"]["release"]
                )

            assert (release("x86_64"), release("arm64")) == ("1.0.0", "1.0.0")
            provider.files = dict(world.now)
            until(lambda: (release("x86_64"), release("arm64")) == ("1.1.0", "1.1.0"))
            stack.close()
            for path in ("/metadata/timestamp.json", provider.blob("kernel")):
                assert get(f"{url}{path}") == world.now[path]
            # That it does not hear of its provider any more is a reason to look, and none to stop.
            until(lambda: b"upkeep failed" in get(f"{url}/health"))
            assert release("arm64") == "1.1.0"


def test_a_mirror_needs_a_root(tmp_path: Path) -> None:
    words = ["serve", "--artifacts", str(tmp_path), "--follow", "http://127.0.0.1:9"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert "--follow needs --root" in result.output


def test_a_first_round_that_fails_is_said(root: str, tmp_path: Path) -> None:
    words = [
        "serve",
        "--artifacts",
        str(tmp_path / "mirror"),
        "--follow",
        "http://127.0.0.1:9",
        "--root",
        root,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "phase", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:9: no connection: Connection refused" in done.stderr
    assert not (tmp_path / "mirror").exists()


@pytest.mark.parametrize("name", ["stable", "stable/riscv", "../arm64"])
def test_a_release_is_named_by_channel_and_architecture(root: str, tmp_path: Path, name: str) -> None:
    words = ["serve", "--artifacts", str(tmp_path), "--follow", "found", "--root", root, "--mirror", name]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2, result.output


def test_without_a_provider_to_follow_a_directory_must_be_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["serve", "--artifacts", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "is not a directory" in result.output
