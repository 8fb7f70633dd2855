"""The commands, as processes, against a real provider with a really signed release."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from fixtures.hostile.server import Answer, Asked, Server
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

KEYS = ReleaseKeys.from_seed("command tests")
ROOTFS = bytes(range(256)) * 12_000


def phase(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phase", *map(str, arguments)], capture_output=True, text=True, timeout=90
    )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    files = {}
    for name, data in (("kernel", b"k" * 999), ("initramfs", b"i" * 999), ("rootfs", ROOTFS)):
        files[name] = tmp_path / name
        files[name].write_bytes(data)
    repository = Repository.create(tmp_path / "published", keys=KEYS)
    repository.add("stable", "x86_64", files, release="1.0.0")
    repository.publish()
    return repository


@pytest.fixture
def url(repository: Repository) -> Iterator[str]:
    with serving(repository.directory) as found:
        yield found


class serving:  # reads as the verb it is
    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phase", "serve", "--artifacts", str(directory), "--bind", "127.0.0.1",
             "--port", "0", "--no-mdns"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        found = re.search(r"http://\S+", self._process.stdout.readline())
        assert found is not None
        return found[0]

    def __exit__(self, *_: object) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


def slowly(url: str) -> Answer:
    """What another server answers, at some four megabytes a second."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        request = urllib.request.Request(url + asked.path)
        try:
            with urllib.request.urlopen(request) as found:
                status, data = found.status, found.read()
        except urllib.error.HTTPError as error:
            status, data = error.code, b""
        connection.sendall(b"HTTP/1.1 %d .\r\nContent-Length: %d\r\n\r\n" % (status, len(data)))
        for start in range(0, len(data), 1 << 18):
            connection.sendall(data[start : start + (1 << 18)])
            stop.wait(1 / 16)
        return True

    return answer


def arguments(repository: Repository, url: str, output: Path) -> list[object]:
    root = repository.directory / "metadata" / "root.json"
    return ["--root", root, "--provider", url, "--arch", "amd64", "--output", output]


def test_fetch_verify_and_serve_on(repository: Repository, url: str, tmp_path: Path) -> None:
    root, output = repository.directory / "metadata" / "root.json", tmp_path / "fetched"
    done = phase("fetch", *arguments(repository, url, output), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["release"] == "1.0.0"
    assert {a["name"]: a["length"] for a in report["artifacts"]}["rootfs"] == len(ROOTFS)
    assert phase("verify", output, "--root", root, "--arch", "x86_64").returncode == 0
    # Generation two: served by who fetched it, the first provider not asked.
    with serving(output) as second:
        again = phase("fetch", *arguments(repository, second, tmp_path / "third"))
        assert again.returncode == 0, again.stderr


def test_a_terminal_sees_how_far_it_is(repository: Repository, url: str, tmp_path: Path) -> None:
    with Server(slowly(url)) as slow:
        words = map(str, arguments(repository, slow.url, tmp_path / "fetched"))
        child = pexpect.spawn(
            sys.executable, ["-m", "phase", "fetch", *words], timeout=60, encoding="utf-8", cwd="/"
        )
        child.expect(r"\r[12]\.\d of 3\.1 MB, \d+\.\d MB/s, \d+ s left\x1b\[K")
        child.expect(r"\r\x1b\[K[^\r]*\r\n")
        child.expect("rootfs: 3072000 bytes, 0 of them kept, verified")
        child.expect(pexpect.EOF)
    assert child.wait() == 0


def test_damage_is_found_and_mended(repository: Repository, url: str, tmp_path: Path) -> None:
    root, output = repository.directory / "metadata" / "root.json", tmp_path / "fetched"
    assert phase("fetch", *arguments(repository, url, output)).returncode == 0
    blob = max((output / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[1 << 20] ^= 1
    blob.write_bytes(data)
    refused = phase("verify", output, "--root", root, "--arch", "x86_64")
    assert refused.returncode == 1
    assert "rootfs" in refused.stderr
    assert "expected sha256" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    mended = phase("fetch", *arguments(repository, url, output), "--json")
    rootfs = next(a for a in json.loads(mended.stdout)["artifacts"] if a["name"] == "rootfs")
    # What is repeated in it is copied from there.
    assert 0 < rootfs["length"] - rootfs["kept"] < 1 << 20
    assert rootfs["reused"] + sum(rootfs["sources"].values()) == rootfs["length"] - rootfs["kept"]
    assert phase("verify", output, "--root", root, "--arch", "x86_64").returncode == 0


def test_a_strangers_root_is_refused(repository: Repository, url: str, tmp_path: Path) -> None:
    stranger = Repository.create(tmp_path / "stranger", keys=ReleaseKeys.from_seed("stranger"))
    stranger.add("stable", "x86_64", {n: tmp_path / n for n in ("kernel", "initramfs")}, release="1")
    stranger.publish()
    done = phase("fetch", *arguments(stranger, url, tmp_path / "fetched"))
    assert done.returncode == 1
    assert done.stderr.startswith("phase: ")
    assert not list((tmp_path / "fetched").glob("blobs/*/*"))


def test_an_older_release_is_refused(repository: Repository, url: str, tmp_path: Path) -> None:
    output = tmp_path / "fetched"
    old = tmp_path / "old"
    assert phase("fetch", *arguments(repository, url, old)).returncode == 0
    files = {name: tmp_path / name for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", "x86_64", files, release="2.0.0")
    repository.publish()
    until = time.monotonic() + 10
    while '"2.0.0"' not in phase("provider", "status", "--json", "--addr", url).stdout:
        assert time.monotonic() < until  # a provider looks a few times a second
    assert "2.0.0" in phase("fetch", *arguments(repository, url, output)).stdout
    with serving(old) as behind:
        done = phase("fetch", *arguments(repository, behind, output))
    assert done.returncode == 1
    assert "phase: " in done.stderr


def test_provider_status(url: str) -> None:
    done = phase("provider", "status", "--addr", url)
    assert done.returncode == 0
    assert "stable/x86_64  1.0.0" in done.stdout
    nobody = phase("provider", "status", "--addr", "http://127.0.0.1:1")
    assert nobody.returncode == 1
    assert "127.0.0.1:1" in nobody.stderr
