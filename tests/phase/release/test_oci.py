"""A release as an OCI image layout, in the hands of a real registry's client and of a real registry."""

import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from boot import debs, tree
from phase.cli import cli
from phase.release import check, oci
from phase.release.errors import RepositoryError
from phase.release.repository import Repository

REFERENCE = "stable-arm64"


def skopeo(*words: object) -> str:
    """What skopeo prints; nobody is asked for signatures of images."""
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def manifest(layout: Path, reference: str = REFERENCE) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    (found,) = [
        each
        for each in index["manifests"]
        if each["annotations"]["org.opencontainers.image.ref.name"] == reference
    ]
    data = blob(layout, found["digest"])
    assert (len(data), hashlib.sha256(data).hexdigest()) == (found["size"], found["digest"][7:])
    return dict(json.loads(data))


def pulled(layout: Path, into: Path) -> Path:
    """The layers under their names, as clients such as ORAS put them."""
    for layer in manifest(layout)["layers"]:
        place = into / layer["annotations"]["org.opencontainers.image.title"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(blob(layout, layer["digest"]))
    return into


def verified(directory: Path, root: bytes) -> list[tuple[str, str]]:
    judged = check.judge(check.reader(directory), root)
    done: set[tuple[str, str]] = set()
    for each in judged.manifests():
        done = check.verify_blobs(directory, each, done)
    return [(each.channel, each.arch) for each in judged.manifests()]


@pytest.fixture
def layout(repository: Repository, tmp_path: Path) -> Path:
    assert oci.export(repository, tmp_path / "layout") > 0
    return tmp_path / "layout"


def test_what_a_client_copied_is_a_repository(repository: Repository, layout: Path, tmp_path: Path) -> None:
    """Byte for byte, and verified by the root alone; the other release is not among it."""
    skopeo("copy", f"oci:{layout}:{REFERENCE}", f"oci:{tmp_path / 'other'}:{REFERENCE}")
    assert manifest(tmp_path / "other") == manifest(layout)
    root = (repository.directory / "metadata/1.root.json").read_bytes()
    assert verified(pulled(tmp_path / "other", tmp_path / "pulled"), root) == [("stable", "arm64")]


def test_a_client_sees_what_it_is(layout: Path) -> None:
    told = json.loads(skopeo("inspect", "--raw", f"oci:{layout}:{REFERENCE}"))
    assert told["artifactType"] == "application/vnd.phase.release.v1"
    assert told["annotations"]["org.opencontainers.image.version"] == "1.0.0"
    kinds = [layer["mediaType"] for layer in told["layers"]]
    assert kinds[:2] == [oci.ARTIFACT] * 2
    assert set(kinds[2:]) == {oci.METADATA}
    index = json.loads((layout / "index.json").read_text())
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]


def test_the_same_release_is_the_same_bytes(repository: Repository, layout: Path, tmp_path: Path) -> None:
    assert oci.export(repository, layout) == 0
    oci.export(repository, tmp_path / "again")
    files = {path.relative_to(layout): path.read_bytes() for path in layout.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert files == {
        path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()
    }


def test_a_damaged_blob_is_not_exported(repository: Repository, tmp_path: Path) -> None:
    kernel = repository.manifest("stable", "arm64").artifacts["kernel"]
    place = repository.directory / "blobs/sha256" / kernel.sha256
    place.chmod(0o644)
    place.write_bytes(b"other")
    with pytest.raises(RepositoryError, match="is not the blob that its name says"):
        oci.export(repository, tmp_path / "layout")
    assert not (tmp_path / "layout/index.json").exists()


def test_part_of_a_repository(repository: Repository, tmp_path: Path) -> None:
    oci.export(repository, tmp_path / "part", [("stable", "x86_64")])
    index = json.loads((tmp_path / "part/index.json").read_text())
    assert len(index["manifests"]) == 1
    assert manifest(tmp_path / "part", "stable-x86_64")["annotations"]["dev.phase.arch"] == "x86_64"


def test_the_command(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout alone, a layout and a tree, and neither."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["release", "export", str(repository.directory), *words])
        return done.exit_code, done.output

    code, told = run("--oci", "layout", "--only", "stable/arm64", "--json")
    count = sum(path.is_file() for path in Path("layout").rglob("*"))
    assert (code, json.loads(told)) == (0, {"target": "layout", "files": count})
    code, told = run("public", "--oci", "layout")
    assert code == 0
    assert [line.split(" written to ")[1] for line in told.splitlines()] == ["public", "layout"]
    assert Path("public/metadata/timestamp.json").exists()
    assert run()[0] == 2


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Debian's registry, unpacked and not installed: installed, it would run on this host from then on."""
    suite, arch = tree.packages()["debian"]["suite"], tree.host_arch()
    found = debs.resolve(suite, arch, ["docker-registry"])
    directory.mkdir()
    debs.unpack(suite, arch, found, directory / "root")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = directory / "config.yml"
    settings.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory / 'store'}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    process = subprocess.Popen(
        [directory / "root/usr/bin/docker-registry", "serve", settings], stderr=subprocess.DEVNULL
    )
    try:
        _answers(port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except OSError:
            assert time.monotonic() < end, "the registry does not answer"
            time.sleep(0.05)


def test_a_real_registry_carries_it(repository: Repository, layout: Path, tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as address:
        there = f"docker://{address}/phase:{REFERENCE}"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{REFERENCE}", there)
        skopeo("copy", "--src-tls-verify=false", there, f"oci:{tmp_path / 'back'}:{REFERENCE}")
    assert manifest(tmp_path / "back") == manifest(layout)
    root = (repository.directory / "metadata/1.root.json").read_bytes()
    assert verified(pulled(tmp_path / "back", tmp_path / "pulled"), root) == [("stable", "arm64")]
