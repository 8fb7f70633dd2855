"""The reference client of The Update Framework, unmodified, against a real `phase serve`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

KERNEL = bytes(range(256)) * 9000


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "kernel").write_bytes(KERNEL)
    made = Repository.create(tmp_path / "r", keys=ReleaseKeys.from_seed("http"))
    for arch in ("x86_64", "arm64"):
        made.add("stable", arch, {"kernel": tmp_path / "kernel"}, release="1")
    made.publish()
    return made


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    words = ["serve", "--artifacts", str(repository.directory), "--bind", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "phase", *words, "--no-mdns"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://[^\s/]+", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_it_accepts_the_repository_and_downloads_a_kernel(
    repository: Repository, url: str, tmp_path: Path
) -> None:
    for directory in ("state", "targets"):
        (tmp_path / directory).mkdir()
    client = Updater(
        str(tmp_path / "state"),
        f"{url}/metadata/",
        str(tmp_path / "targets"),
        f"{url}/targets/",
        bootstrap=(repository.directory / "metadata/1.root.json").read_bytes(),
    )
    client.refresh()
    info = client.get_targetinfo("stable/arm64/kernel")
    assert info is not None
    assert Path(client.download_target(info)).read_bytes() == KERNEL
