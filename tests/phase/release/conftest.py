"""Artifacts, keys and a time to publish with."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Path]:
    """A kernel of two chunks and a bit, and a small initramfs."""
    (tmp_path / "kernel").write_bytes(bytes(range(256)) * 8192 + b"tail")
    (tmp_path / "initramfs").write_bytes(b"initramfs")
    return {name: tmp_path / name for name in ("kernel", "initramfs")}


@pytest.fixture
def keys() -> ReleaseKeys:
    return ReleaseKeys.from_seed("release tests")


@pytest.fixture
def repository(tmp_path: Path, artifacts: dict[str, Path], keys: ReleaseKeys) -> Repository:
    """Published: stable for both architectures."""
    found = Repository.create(tmp_path / "r", keys=keys, now=NOW)
    for arch in ("x86_64", "arm64"):
        found.add("stable", arch, artifacts, cmdline=f"quiet {arch}", release="1.0.0")
    found.publish()
    return found
