"""The reference client of The Update Framework takes what we publish, unmodified."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tuf.api.exceptions import DownloadHTTPError, UnsignedMetadataError
from tuf.ngclient import FetcherInterface, Updater

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

Artifacts = dict[str, Path]


class Directory(FetcherInterface):
    """Gets what a static web server over the repository would answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield (self.directory / urlsplit(url).path.lstrip("/")).read_bytes()
        except FileNotFoundError:
            raise DownloadHTTPError(f"no {url}", 404) from None


def updater(directory: Path, state: Path, root: bytes) -> Updater:
    (state / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(state),
        "http://example.test/metadata/",
        str(state / "targets"),
        "http://example.test/targets/",
        fetcher=Directory(directory),
        bootstrap=root,
    )


@pytest.fixture
def published(tmp_path: Path, artifacts: Artifacts, keys: ReleaseKeys) -> Repository:
    repository = Repository.create(tmp_path / "r", keys=keys, now=datetime.now(UTC))
    for arch in ("x86_64", "arm64"):
        repository.add("stable", arch, artifacts, release="1.0.0")
    repository.publish()
    return repository


def test_it_downloads_a_target(published: Repository, artifacts: Artifacts, tmp_path: Path) -> None:
    root = (published.directory / "metadata/1.root.json").read_bytes()
    client = updater(published.directory, tmp_path / "state", root)
    client.refresh()
    info = client.get_targetinfo("stable/arm64/kernel")
    assert info is not None
    assert Path(client.download_target(info)).read_bytes() == artifacts["kernel"].read_bytes()
    assert client.get_targetinfo("stable/arm64/absent") is None


def test_it_follows_an_update_and_a_rotation(
    published: Repository, artifacts: Artifacts, tmp_path: Path
) -> None:
    root = (published.directory / "metadata/1.root.json").read_bytes()
    updater(published.directory, tmp_path / "state", root).refresh()
    published.rotate(ReleaseKeys.from_seed("fresh"))
    published.add("stable", "x86_64", {"kernel": artifacts["initramfs"]}, release="2")
    published.publish()
    client = updater(published.directory, tmp_path / "state", root)
    info = client.get_targetinfo("stable/x86_64/kernel")
    assert info is not None
    assert info.length == artifacts["initramfs"].stat().st_size
    assert client._trusted_set.root.version == 2


def test_it_refuses_another_publisher(published: Repository, artifacts: Artifacts, tmp_path: Path) -> None:
    stranger = Repository.create(tmp_path / "s", keys=ReleaseKeys.from_seed("stranger"))
    stranger.add("stable", "x86_64", artifacts, release="1")
    stranger.publish()
    root = (stranger.directory / "metadata/1.root.json").read_bytes()
    with pytest.raises(UnsignedMetadataError):
        updater(published.directory, tmp_path / "state", root).refresh()
