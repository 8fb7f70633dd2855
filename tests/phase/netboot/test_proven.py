"""What is handed out is what was signed, where a root is given."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phase.errors import PhaseError
from phase.fetch.http import parse_url
from phase.netboot import menu
from phase.netboot.proven import Proven
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from scenarios.serving import serving

KEYS = ReleaseKeys.from_seed("netboot")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.create(tmp_path / "repository", keys=KEYS)
    publish(made, tmp_path, b"1")
    return made


def publish(made: Repository, work: Path, mark: bytes) -> None:
    files = {name: work / name for name in ("kernel", "initramfs", "uki")}
    for name, path in files.items():
        path.write_bytes(b"MZ" + name.encode() + mark * 100_000)
    made.add("seed", "x86_64", files, cmdline="quiet", release=mark.decode())
    made.publish()


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with serving(repository.directory, "--port", "0", "--no-mdns") as found:
        yield found


def fetched(url: str, proven: Proven | None) -> bytes:
    seeds = menu.fetch(parse_url(url), "seed", ("x86_64", "arm64"), proven=proven.image if proven else None)
    assert set(seeds) == {"x86_64"}
    assert seeds["x86_64"].script
    return seeds["x86_64"].image


def test_a_provider_serves_what_is_handed_out(repository: Repository, url: str, tmp_path: Path) -> None:
    root = (repository.directory / "metadata" / "1.root.json").read_bytes()
    proven = Proven(root, url, "seed", tmp_path / "place", tell=lambda _: None)
    assert fetched(url, proven) == fetched(url, None) == b"MZuki" + b"1" * 100_000
    publish(repository, tmp_path, b"2")
    end = time.monotonic() + 30
    # The provider looks for a new release a few times a second.
    while fetched(url, proven) != b"MZuki" + b"2" * 100_000:
        assert time.monotonic() < end


def test_a_seed_of_another_publisher_is_not_handed_out(url: str, tmp_path: Path) -> None:
    other = Repository.create(tmp_path / "other", keys=ReleaseKeys.from_seed("another"))
    other.publish()
    root = (other.directory / "metadata" / "1.root.json").read_bytes()
    assert fetched(url, None)
    with pytest.raises(PhaseError):
        fetched(url, Proven(root, url, "seed", tmp_path / "place", tell=lambda _: None))
