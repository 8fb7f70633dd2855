"""A running system becomes the next release: only a newer one, by the root of its seed, from what it has."""

import os
import random
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from phase import trust
from phase.boot import cache, update
from phase.boot.errors import BootError
from phase.boot.fake import StartedError
from phase.boot.policy import GATHER
from phase.boot.update import Update
from phase.discovery import DiscoveryError
from phase.errors import PhaseError
from phase.fetch import VerificationError
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from phase.trust import floor
from tests.phase.boot.conftest import ARCH, Boot, Publish, Serve, nearby

SIZE = 2 << 20


@pytest.fixture
def repository(publish: Publish, tmp_path: Path) -> Repository:
    """With a release that has been booted: `running` is what the system has of it."""
    made: Repository = publish()
    add(made, tmp_path, b"")
    shutil.copytree(tmp_path / "r", tmp_path / "running", symlinks=True)
    return made


def add(
    repository: Repository,
    tmp_path: Path,
    change: bytes,
    release: str = "1.0.1",
    line: str = "quiet root=/dev/signed",
) -> None:
    """Publish one more release, whose rootfs has something more in its middle."""
    rootfs = random.Random(3).randbytes(SIZE)  # noqa: S311
    (tmp_path / "r-rootfs").write_bytes(rootfs[: SIZE // 2] + change + rootfs[SIZE // 2 :])
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline=line, release=release)
    repository.publish()


def made(boot: Boot, *urls: str, words: str = "") -> Update:
    """The update of a system that was booted so."""
    machine = boot.prepared(*urls, words=words)
    return Update(machine, boot.directory / "running", timeout=20)


def fetched(said: str) -> dict[str, int]:
    """The bytes of the mark of the fetch."""
    line = next(line for line in said.splitlines() if '"step":"fetch","outcome":"ok"' in line)
    words = dict(word.split(":") for word in line.replace('"', "").split(",") if word.count(":") == 1)
    return {name: int(words[name]) for name in ("bytes", "kept", "reused")}


def test_a_newer_release_is_started_and_only_its_news_fetched(
    boot: Boot,
    repository: Repository,
    serve: Serve,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    with pytest.raises(StartedError):
        made(boot, serve(), words="phase.job=hello phase.console=shell").start_newer()
    machine = boot.machine
    kernel = repository.manifest("stable", ARCH).artifacts["kernel"]
    ((line, loaded),) = machine.loaded
    assert sha256(loaded).hexdigest() == kernel.sha256
    assert "root=/dev/signed" in line
    assert "phase.job=hello" in line
    assert "phase.console" not in line
    facts = fetched(capfd.readouterr().err)
    assert facts["bytes"] - facts["reused"] < SIZE * 0.1
    assert machine.did == ["load", "measure", "start"]


def test_what_only_the_release_before_signed_ends_with_it(
    boot: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    """A publisher who no longer signs `phase.node=open` has closed the nodes; the mode may be a person's."""
    signed = "quiet phase.node=open phase.mode=local console=ttyS9"
    add(repository, tmp_path, b"more", "1.0.2", signed)
    shutil.rmtree(tmp_path / "running")
    shutil.copytree(tmp_path / "r", tmp_path / "running", symlinks=True)
    add(repository, tmp_path, b"news", "1.0.3")
    with pytest.raises(StartedError):
        made(boot, serve(), words=f"{signed} phase.job=hello").start_newer()
    ((line, _),) = boot.machine.loaded
    words = line.split()
    assert {"phase.mode=local", "phase.job=hello", "root=/dev/signed"} <= {*words}
    assert not {"phase.node=open", "console=ttyS9"} & {*words}


def test_where_nothing_is_newer_nothing_happens(boot: Boot, repository: Repository, serve: Serve) -> None:
    url = serve()
    assert made(boot, url).newer() is None
    made(boot, url).start_newer()
    assert boot.machine.did == []


def test_the_first_that_answers_is_not_the_only_one_asked(
    boot: Boot, repository: Repository, serve: Serve
) -> None:
    boot.machine.nearby = nearby(serve())
    assert made(boot).newer() is None
    assert [each.gather for each in boot.machine.searches] == [GATHER[-1]]


def test_that_this_system_serves_its_own_release_says_nothing(
    boot: Boot, repository: Repository, serve: Serve
) -> None:
    boot.machine.nearby = nearby(serve())
    boot.machine.own = {"127.0.0.1"}
    with pytest.raises(DiscoveryError, match=r"no provider of stable/.* was found"):
        made(boot).newer()


def test_a_system_that_fell_back_is_not_the_newest(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    repository = publish()
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    before = repository.manifest("stable", ARCH).artifacts["rootfs"].sha256
    (tmp_path / "r-rootfs").write_bytes(b"the next one")
    line = "quiet root=/dev/signed"
    repository.add("stable", ARCH, artifacts, cmdline=line, release="2.0.0", fall_back=True)
    repository.publish()
    shutil.copytree(tmp_path / "r", tmp_path / "running", symlinks=True)
    newest = repository.manifest("stable", ARCH).artifacts["rootfs"].sha256
    for rootfs, standing in (
        (before, "1.0.0 runs, because 2.0.0 did not come up"),
        (newest, "this system is the newest release"),
    ):
        update = made(boot, serve(), words=f"phase.rootfs=sha256:{rootfs}")
        assert update.newer() is None
        assert update.standing == standing


def test_one_that_is_newer_is_told_and_not_fetched(
    boot: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    found = made(boot, serve()).newer()
    assert found is not None
    assert (found.release, found.version) == ("1.0.2", 3)
    assert boot.machine.did == []
    assert os.fstat(boot.machine.initrd).st_size == 0


def test_what_was_updated_to_is_remembered(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    """After a power cut, nobody who still has the release before is believed."""
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    add(repository, tmp_path, b"news", "1.0.2")
    boot.machine.variables = tmp_path / "variables"
    boot.machine.variables.mkdir()
    with pytest.raises(StartedError):
        made(boot, serve()).start_newer()
    assert boot.machine.did == ["load", "unmount", "measure", "start", "unmount"]
    disk, boot.machine.disk = boot.machine.disk, None
    old = serve("old")
    for machine in ("with the firmware alone", "with the disk alone"):
        code, asked = boot(old, words="phase.timeout=1 phase.mdns=off")
        assert (code, asked.started) == (1, []), machine
        boot.machine.disk, boot.machine.variables = disk, None
    # And it is here whole.
    boot.machine.etc["allow-offline"] = b""
    code, asked = boot("http://127.0.0.1:9", words="phase.timeout=1 phase.mdns=off")
    assert (code, len(asked.started)) == (0, 1)


def test_a_start_by_an_update_is_counted(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    (tmp_path / "r-rootfs").write_bytes(b"the next one")
    line = "quiet root=/dev/signed"
    repository.add("stable", ARCH, artifacts, cmdline=line, release="2.0.0", fall_back=True)
    repository.publish()
    with pytest.raises(StartedError):
        made(boot, serve()).start_newer()
    publisher = floor.publisher(boot.machine.etc["root.json"])
    assert (kept / f"tries-{publisher}").read_text().endswith(" 1 0\n")


@pytest.mark.parametrize("disk", ["full", "spoilt", "half", "links", "gone"])
def test_whatever_the_disk_is_like_the_signed_release_is_started(
    boot: Boot,
    repository: Repository,
    serve: Serve,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disk: str,
) -> None:
    """What it says is verified, and what it cannot keep is not kept."""
    boot(serve())
    add(repository, tmp_path, b"news", "1.0.2")
    url = serve()
    blobs = kept / "blobs/sha256"
    for artifact in repository.manifest("stable", ARCH).artifacts.values():
        blob = blobs / artifact.content
        if disk == "spoilt":
            blob.write_bytes(random.Random(5).randbytes(artifact.length))  # noqa: S311
        elif disk == "half":
            content = (tmp_path / "r/blobs/sha256" / artifact.sha256).read_bytes()
            blob.write_bytes(content[: len(content) // 2])
        elif disk == "links":
            blob.unlink(missing_ok=True)
            blob.symlink_to(tmp_path / "r-rootfs")
    if disk == "full":
        monkeypatch.setattr(cache.Cache, "_free", lambda self: 0)
    if disk == "gone":
        boot.machine.disk = None
    rootfs = (tmp_path / "r-rootfs").read_bytes()
    with pytest.raises(StartedError):
        made(boot, url).start_newer()
    signed = repository.manifest("stable", ARCH).artifacts
    ((line, loaded),) = boot.machine.loaded
    assert sha256(loaded).hexdigest() == signed["kernel"].sha256
    assert f"phase.rootfs=sha256:{signed['rootfs'].sha256}" in line
    assert (tmp_path / "r-rootfs").read_bytes() == rootfs


@pytest.mark.parametrize("words", ["phase.nowrite", "phase.cache=off phase.nowrite"])
def test_an_update_writes_nothing_where_nothing_may_be(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path, words: str
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    boot.machine.variables = tmp_path / "variables"
    boot.machine.variables.mkdir()
    with pytest.raises(StartedError):
        made(boot, serve(), words=words).start_newer()
    assert not [
        path for place in (kept, boot.machine.variables) for path in place.rglob("*") if path.is_file()
    ]


def test_an_older_one_is_refused(boot: Boot, repository: Repository, serve: Serve, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    add(repository, tmp_path, b"news", "1.0.2")
    shutil.rmtree(tmp_path / "running")
    shutil.copytree(tmp_path / "r", tmp_path / "running", symlinks=True)
    with pytest.raises(trust.RollbackError):
        made(boot, serve("old"), words="phase.mdns=off").newer()


def test_another_publisher_s_is_refused(
    boot: Boot, repository: Repository, publish: Publish, serve: Serve
) -> None:
    publish("theirs", keys="theirs", release="9.9.9")
    with pytest.raises(trust.TrustError):
        made(boot, serve("theirs"), words="phase.mdns=off").start_newer()
    assert boot.machine.did == []


def test_damaged_bytes_start_nothing_and_give_the_memory_back(
    boot: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    digest = repository.manifest("stable", ARCH).artifacts["rootfs"].sha256
    blob = tmp_path / "r/blobs/sha256" / digest
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"news", b"lies"))
    with pytest.raises(VerificationError):
        made(boot, serve(), words="phase.mdns=off").start_newer()
    assert boot.machine.did == []
    assert os.fstat(boot.machine.initrd).st_size == 0


def test_what_runs_is_copied_only_where_it_is_the_signed_one(
    boot: Boot, repository: Repository, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    for blob in (tmp_path / "running/blobs/sha256").iterdir():
        blob.chmod(0o644)
        blob.write_bytes(bytes(blob.stat().st_size))
    with pytest.raises(StartedError):
        made(boot, serve()).start_newer()
    assert fetched(capfd.readouterr().err)["reused"] == 0


def test_where_who_was_named_is_gone_others_are_asked(
    boot: Boot, repository: Repository, serve: Serve, tmp_path: Path
) -> None:
    add(repository, tmp_path, b"news", "1.0.2")
    boot.machine.nearby = nearby(serve())
    found = made(boot, "http://127.0.0.1:9").newer()
    assert found is not None
    with pytest.raises(PhaseError):
        made(boot, "http://127.0.0.1:9", words="phase.mdns=off").newer()


def test_private_mode_asks_nobody_but_through_tor(boot: Boot, repository: Repository, serve: Serve) -> None:
    with pytest.raises(BootError, match="private mode fetches through Tor alone"):
        made(boot, serve(), words="phase.mode=private").newer()


def test_a_machine_that_no_seed_has_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="cannot be read: No such file or directory"):
        update.metadata(tmp_path)
    with pytest.raises(BootError, match="came without its metadata"):
        update.first_root({"timestamp.json": b"", "root.json": b"", "x.root.json": b""})


def test_the_root_is_the_one_that_the_seed_had(repository: Repository, tmp_path: Path) -> None:
    """After a rotation, too: by its key the floors of this publisher are known."""
    first = (tmp_path / "r/metadata/1.root.json").read_bytes()
    repository.rotate(ReleaseKeys.from_seed("fresh"))
    repository.publish()
    assert (tmp_path / "r/metadata/2.root.json").exists()
    assert update.first_root(update.metadata(tmp_path / "r")) == first
