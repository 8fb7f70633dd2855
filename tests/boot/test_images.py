"""An image is of one state of the sources."""

from pathlib import Path

import pytest

from boot import cache, images
from boot.errors import BuildError


def test_what_was_built_while_the_sources_changed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path))
    states = iter([{"state": 1}, {"state": 2}, {"state": 2}, {"state": 2}])
    monkeypatch.setattr(images, "_inputs", lambda base, sources: next(states))
    with pytest.raises(BuildError, match="the sources of seed-x86_64 changed while it was built"):
        images._cached("seed-x86_64", tmp_path, (), lambda into: None)
    assert not list((cache.root() / "images").iterdir())
    assert images._cached("seed-x86_64", tmp_path, (), lambda into: None).is_dir()
