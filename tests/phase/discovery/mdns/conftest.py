import secrets
from pathlib import Path

import pytest

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository


@pytest.fixture
def channel() -> str:
    """A channel of this test alone: others on this machine may be testing too."""
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def repository(tmp_path: Path, channel: str) -> Repository:
    (tmp_path / "kernel").write_bytes(b"kernel")
    made = Repository.create(tmp_path / "repository", keys=ReleaseKeys.from_seed("mdns"))
    files = {"kernel": tmp_path / "kernel", "initramfs": tmp_path / "kernel"}
    made.add(channel, "x86_64", files, release="1")
    made.publish()
    return made
