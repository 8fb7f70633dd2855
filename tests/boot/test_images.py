"""An image is of one state of the sources."""

import argparse
from pathlib import Path

import pytest

from boot import cache, images, programs, tree
from boot.errors import BuildError
from boot.media import build, command


def test_what_was_built_while_the_sources_changed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path))
    states = iter([{"state": 1}, {"state": 2}, {"state": 2}, {"state": 2}])
    with pytest.raises(BuildError, match="the sources of seed-x86_64 changed while it was built"):
        images._cached("seed-x86_64", lambda: next(states), lambda into: None)
    assert not list((cache.root() / "images").iterdir())
    assert images._cached("seed-x86_64", lambda: next(states), lambda into: None).is_dir()


def test_tor_is_built_anew_with_what_packs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the same packages, for any source of its archive."""
    for name in ("tor.py", "debs.py", "stage.py", "elf.py", "tree.py", "run.py"):
        (tmp_path / name).write_bytes(b"")
    packer = tmp_path / "phase/boot/cpio.py"
    packer.parent.mkdir(parents=True)
    packer.write_bytes(b"")
    monkeypatch.setattr(tree, "HERE", tmp_path)
    monkeypatch.setattr(images, "PROJECT", tmp_path)
    monkeypatch.setattr(images, "run", lambda words: "zstd 1")
    keys = [cache.key(images._tor_inputs([]))]
    for path in (tmp_path / "run.py", tmp_path / "debs.py", packer):
        path.write_bytes(b"changed")
        keys.append(cache.key(images._tor_inputs([])))
    monkeypatch.setattr(images, "run", lambda words: "zstd 2")
    keys.append(cache.key(images._tor_inputs([])))
    assert len({*keys}) == len(keys) == 5


def test_a_refreshed_medium_has_a_refreshed_tor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    for name in ("seed", "tor"):
        monkeypatch.setattr(images, name, lambda arch, refresh, name=name: asked.append((name, arch)))
    monkeypatch.setattr(programs, "get", lambda kind, arch, refresh: asked.append((kind, arch)))
    monkeypatch.setattr(build, "build", lambda kind, plan, out: [])
    (tmp_path / "root.json").write_bytes(b"{}")
    parser = argparse.ArgumentParser()
    parser.add_argument("--refresh", action="store_true")
    command.add_options(parser)
    words = ["--refresh", "--tor", "--root", str(tmp_path / "root.json"), "--out", str(tmp_path / "stick")]
    command.run("usb", ("arm64",), parser.parse_args(words))
    assert asked == [("seed", "arm64"), ("systemd-boot", "arm64"), ("tor", "arm64")]
