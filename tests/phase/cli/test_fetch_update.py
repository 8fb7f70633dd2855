"""`phase fetch` of a newer release: only what is new comes from providers."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from phase.boot.cache import Cache
from phase.cli import cli
from phase.fetch.here import Here
from phase.release.described import releases
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.phase.provider.service import serving

Publish = Callable[[str, bytes], None]
Fetch = Callable[..., dict[str, Any]]
#: Of the random bytes that change nowhere.
SIZE = 3 << 20


@pytest.fixture
def rootfs() -> bytes:
    return random.Random(6).randbytes(SIZE)  # noqa: S311


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def publish(tmp_path: Path, repository: Path) -> Publish:
    keys = ReleaseKeys.from_seed("updates")

    def publish(release: str, rootfs: bytes) -> None:
        new = not repository.exists()
        place = Repository.create(repository, keys=keys) if new else Repository.open(repository, keys=keys)
        (tmp_path / "kernel").write_bytes(b"kernel")
        (tmp_path / "rootfs").write_bytes(rootfs)
        names = {name: tmp_path / name for name in ("kernel", "rootfs")}
        place.add("stable", "x86_64", names, cmdline="quiet", release=release)
        place.publish()

    return publish


@pytest.fixture
def fetch(tmp_path: Path, repository: Path) -> Fetch:
    """Run `phase fetch` into a directory; what it says as JSON."""

    def fetch(into: str, *words: str) -> dict[str, Any]:
        with serving(repository) as (url, _):
            root = str(repository / "metadata/1.root.json")
            line = ["fetch", "--root", root, "--output", str(tmp_path / into), "--arch", "x86_64", "--json"]
            result = CliRunner().invoke(cli, [*line, "--provider", url, *words])
        assert result.exit_code == 0, (result.output, result.exception)
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return fetch


def changed(rootfs: bytes) -> bytes:
    return rootfs[:1_000_000] + b"a security update" + rootfs[1_000_000:]


def test_only_what_is_new_comes_from_providers(publish: Publish, fetch: Fetch, rootfs: bytes) -> None:
    publish("1", rootfs)
    first = fetch("out")
    assert first["fetched"] == first["length"] == SIZE + len(b"kernel")
    publish("2", changed(rootfs))
    second = fetch("out")
    assert second["release"] == "2"
    assert 0 < second["fetched"] < SIZE * 0.1
    found = {artifact["name"]: artifact for artifact in second["artifacts"]}
    assert found["rootfs"]["reused"] == found["rootfs"]["length"] - sum(found["rootfs"]["sources"].values())
    assert found["kernel"]["kept"] == len(b"kernel")


def test_people_are_told_how_much_that_was(
    publish: Publish, repository: Path, rootfs: bytes, tmp_path: Path
) -> None:
    publish("1", rootfs)
    with serving(repository) as (url, _):
        root = str(repository / "metadata/1.root.json")
        words = ["fetch", "--root", root, "--output", str(tmp_path / "out"), "--arch", "x86_64"]
        said = CliRunner().invoke(cli, [*words, "--provider", url]).stdout
    assert f"{SIZE + 6} of {SIZE + 6} bytes came from providers (1.000)" in said


def test_what_another_directory_has_is_taken(
    publish: Publish, fetch: Fetch, rootfs: bytes, tmp_path: Path
) -> None:
    publish("1", rootfs)
    fetch("old")
    publish("2", changed(rootfs))
    assert fetch("out", "--have", str(tmp_path / "nothing"))["fetched"] > SIZE
    assert fetch("other", "--have", str(tmp_path / "old"))["fetched"] < SIZE * 0.1


def test_what_a_seed_s_cache_has_is_taken(
    publish: Publish, fetch: Fetch, rootfs: bytes, repository: Path, tmp_path: Path
) -> None:
    publish("1", rootfs)
    (tmp_path / "cache/blobs").mkdir(parents=True)
    cache = Cache(tmp_path / "cache", "0" * 64)
    metadata = {path.name: path.read_bytes() for path in (repository / "metadata").iterdir()}
    (manifest,) = releases(metadata)
    artifacts = manifest.artifacts.values()
    for artifact in artifacts:
        blob = repository / "blobs/sha256" / artifact.sha256
        (tmp_path / "cache/blobs/sha256" / artifact.content).write_bytes(blob.read_bytes())
    cache.remember(metadata, [artifact.content for artifact in artifacts])
    publish("2", changed(rootfs))
    assert fetch("out", "--have", str(tmp_path / "cache"))["fetched"] < SIZE * 0.1


def test_nothing_there_is_believed(publish: Publish, fetch: Fetch, rootfs: bytes, tmp_path: Path) -> None:
    """Its metadata is damaged or lies, its files have changed or are links: it all comes from providers."""
    publish("1", rootfs)
    old = fetch("old")
    blobs = tmp_path / "old/blobs/sha256"
    for path in blobs.iterdir():
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
    for name in ("2.stable-x86_64.json", "3.evil.json", "x.json", "9.stable-arm64.json"):
        (tmp_path / "old/metadata" / name).write_bytes(b'{"signed": {"_type": "targets"}}')
    (tmp_path / "old/metadata/4.stable-x86_64.json").symlink_to("/dev/zero")
    publish("2", changed(rootfs))
    found = fetch("out", "--have", str(tmp_path / "old"))
    assert found["fetched"] == found["length"] > old["length"]
    assert not any(artifact["reused"] for artifact in found["artifacts"])


def test_a_file_that_is_gone_is_no_place(
    publish: Publish, fetch: Fetch, rootfs: bytes, tmp_path: Path
) -> None:
    publish("1", rootfs)
    fetch("old")
    here = Here()
    here.add_directory(tmp_path / "old")
    metadata = {path.name: path.read_bytes() for path in (tmp_path / "old/metadata").iterdir()}
    (manifest,) = releases(metadata)
    artifact = manifest.artifacts["rootfs"]
    assert here.get(artifact.chunks[0], artifact.starts[1]) == rootfs[: artifact.starts[1]]
    (tmp_path / "old/blobs/sha256" / artifact.sha256).unlink()
    assert here.get(artifact.chunks[0], artifact.starts[1]) is None
    assert here.get("0" * 64, 1) is None
