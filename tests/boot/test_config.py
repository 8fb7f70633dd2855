"""What a seed's image says of whom and what it trusts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boot import baked, images
from boot.errors import BuildError
from phase.errors import PhaseError
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.boot.reads import names


def test_nothing_is_allowed_that_was_not_asked_for() -> None:
    assert names(images.config(b"{}")) == {"etc/phase/root.json": b"{}", "etc/phase/build-time": b"0\n"}


def test_what_was_asked_for_is_there() -> None:
    config = images.config(
        b"{}", allow_shell=True, allow_offline=True, grace={"local": 86_400}, build_time=5
    )
    assert names(config) == {
        "etc/phase/root.json": b"{}",
        "etc/phase/build-time": b"5\n",
        "etc/phase/allow-shell": b"",
        "etc/phase/allow-offline": b"",
        "etc/phase/grace-local": b"86400\n",
    }


@pytest.mark.parametrize("grace", [{"localhost": 1}, {"local": -1}, {"local": images.MAX_GRACE + 1}])
def test_a_grace_that_cannot_be(grace: dict[str, int]) -> None:
    with pytest.raises(BuildError, match="modes are internet, local, private, and ten years is the most"):
        images.config(b"{}", grace=grace)


@pytest.mark.parametrize("word", ["local", "local=", "local=-1", "local=soon"])
def test_a_grace_that_cannot_be_read(word: str, tmp_path: Path) -> None:
    words = ["seed", "--root", "r.json", "--arch", "x86_64", "--cmdline", "", "--grace", word, str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "boot", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{word!r} is not MODE=DAYS" in done.stderr


def test_a_floor_is_the_repositorys_or_a_clients(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"k")
    repository = Repository.create(tmp_path / "r", keys=ReleaseKeys.from_seed("floor"))
    for release in ("1", "2"):
        repository.add("stable", "x86_64", {"kernel": tmp_path / "kernel"}, release=release)
        repository.publish()
    root, now = (tmp_path / "r/metadata/1.root.json").read_bytes(), int(time.time())
    found = baked.read_floor(tmp_path / "r", root, now)
    assert (found.root, found.timestamp, found.meta["stable-x86_64.json"]) == (1, 2, 2)
    # As a machine that keeps nothing finds it in its image.
    image = names(images.config(root, floor=found))["etc/phase/floor.json"]
    (tmp_path / "floor.json").write_bytes(image)
    assert baked.read_floor(tmp_path / "floor.json", root, now) == found
    Repository.create(tmp_path / "s", keys=ReleaseKeys.from_seed("stranger")).publish()
    with pytest.raises(PhaseError, match=r"timestamp.json is signed by 0"):
        baked.read_floor(tmp_path / "s", root, now)


def test_a_floor_that_is_none_makes_no_seed(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(b"{}")
    (tmp_path / "floor.json").write_bytes(b"{")
    words = ["seed", "--root", "root.json", "--arch", "x86_64", "--cmdline", "", "--floor", "floor.json"]
    done = subprocess.run(
        [sys.executable, "-m", "boot", *words, "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert "trust state floor.json is damaged" in done.stderr
    assert not (tmp_path / "out").exists()
