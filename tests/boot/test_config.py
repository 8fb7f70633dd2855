"""What a seed's image says of whom and what it trusts."""

import subprocess
import sys
from pathlib import Path

import pytest

from boot import images
from boot.errors import BuildError


def names(archive: bytes) -> dict[str, bytes]:
    """File name to content, by cpio's own reading."""
    listed = subprocess.run(["cpio", "-t", "--quiet"], input=archive, capture_output=True, check=True)
    found = {}
    for name in listed.stdout.decode().split():
        if name in ("etc", "etc/phase"):
            continue
        shown = subprocess.run(
            ["cpio", "-i", "--quiet", "--to-stdout", name], input=archive, capture_output=True, check=True
        )
        found[name] = shown.stdout
    return found


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
