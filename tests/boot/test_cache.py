"""The cache holds whole things or nothing."""

import threading
from pathlib import Path

import pytest

from boot import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path / "cache"))


def images() -> list[str]:
    directory = cache.root() / "images"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_thing_is_built_once() -> None:
    calls = []

    def build(into: Path) -> None:
        calls.append(1)
        (into / "image").write_text("x")

    first = cache.get("seed", {"a": 1}, build)
    assert cache.get("seed", {"a": 1}, build) == first
    assert cache.get("seed", {"a": 2}, build) != first
    assert len(calls) == 2


def test_a_failed_build_leaves_nothing() -> None:
    def build(into: Path) -> None:
        (into / "half").write_text("x")
        raise RuntimeError("the compressor died")

    with pytest.raises(RuntimeError, match="compressor"):
        cache.get("seed", {}, build)
    assert images() == []


def test_what_a_killed_build_left_is_swept_by_the_next() -> None:
    name = f"seed-{cache.key({})}"
    (cache.root() / "images" / f".{name}.dead").mkdir(parents=True)
    cache.get("seed", {}, lambda into: (into / "image").touch())
    assert images() == [name]


def test_two_at_once_build_once() -> None:
    calls = []
    inside = threading.Event()

    def build(into: Path) -> None:
        calls.append(1)
        inside.wait(5)

    threads = [threading.Thread(target=cache.get, args=("seed", {}, build)) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
