"""A release that does not come up is left for the one before it, by the same manifest."""

from hashlib import sha256
from pathlib import Path

import pytest

from phase.boot import fallback, healthy
from phase.boot.errors import LockedDownError
from phase.boot.fallback import TRIES
from phase.boot.machine import Kernel
from phase.release.repository import Repository
from phase.trust import floor
from tests.phase.boot.conftest import ARCH, Boot, Publish, Serve, kernel

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def repository(publish: Publish, tmp_path: Path) -> Repository:
    found: Repository = publish()
    return found


def newer(repository: Repository, tmp_path: Path, release: str = "2.0.0", *, fall_back: bool = True) -> str:
    """Publish a release with another kernel; the hash of that.

    It needs a provider of its own: one that runs looks for news a few times a second.
    """
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    (tmp_path / "r-rootfs").write_bytes(f"rootfs {release}".encode() * 900)
    artifacts = {each: tmp_path / f"r-{each}" for each in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet second", release=release, fall_back=fall_back)
    repository.publish()
    return repository.manifest("stable", ARCH).artifacts["kernel"].sha256


def booted(boot: Boot, *urls: str, words: str = "") -> tuple[str, str]:
    """Boot once; the hash of the kernel that was started, and its line."""
    code, asked = boot(*urls, words=words)
    assert code == 0
    ((line, image),) = asked.loaded
    return sha256(image).hexdigest(), line


def well(boot: Boot, tmp_path: Path, line: str, *, serves: bool = True) -> int:
    """The system that was started says that it is well, or is not."""
    boot.machine.line = line
    return healthy.main(boot.machine, tmp_path / "r", lambda: serves)


def test_after_some_starts_the_one_before_is_started(
    boot: Boot,
    repository: Repository,
    serve: Serve,
    kept: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without fetching it: it is still on the disk. A next release begins anew."""
    url = serve()
    first, line = booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    for _ in range(TRIES):
        assert booted(boot, url)[0] == second
    blob = tmp_path / "r/blobs/sha256" / first
    blob.rename(tmp_path / "gone")
    found, again = booted(boot, url)
    assert found == first
    assert "second" not in again
    assert again.split()[-1] == line.split()[-1]  # the rootfs
    said = capfd.readouterr().err
    assert "release 2.0.0 was started 2 times and did not come up; the one before it is started" in said
    (tmp_path / "gone").rename(blob)
    third = newer(repository, tmp_path, "3.0.0")
    url = serve()
    assert [booted(boot, url)[0] for _ in range(TRIES)] == [third] * TRIES


def test_one_that_a_locked_down_machine_refuses_counts_as_started(
    boot: Boot,
    repository: Repository,
    serve: Serve,
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its publisher forgot to sign its kernel for Secure Boot; the one before it was signed."""
    url = serve()
    first, _ = booted(boot, url)
    newer(repository, tmp_path)
    url = serve()
    load = boot.machine.load

    def refuse(kernel: Kernel) -> None:
        if "second" in kernel.line:
            raise LockedDownError("the release's kernel is not signed")
        load(kernel)

    monkeypatch.setattr(boot.machine, "load", refuse)
    for _ in range(TRIES):
        assert boot(url)[0] == 1
    assert booted(boot, url)[0] == first


def test_the_newest_has_another_chance_less_and_less_often(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    """It may have been the power that failed; without a next release, too."""
    url = serve()
    first, _ = booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    starts = [booted(boot, url) for _ in range(11)]
    called = {first: "-", second: "+"}
    assert "".join(called[found] for found, _ in starts) == "++-+--+----"
    found, line = booted(boot, url)
    assert found == second
    assert well(boot, tmp_path, line) == 0
    assert [booted(boot, url)[0] for _ in range(TRIES + 1)] == [second] * TRIES + [first]


def test_one_that_is_well_is_started_again_and_again(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    url = serve()
    booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    for _ in range(TRIES + 2):
        found, line = booted(boot, url)
        assert found == second
        assert well(boot, tmp_path, line) == 0


def test_one_that_does_not_serve_is_not_well(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    url = serve()
    first, _ = booted(boot, url)
    newer(repository, tmp_path)
    url = serve()
    for _ in range(TRIES):
        _, line = booted(boot, url)
        assert well(boot, tmp_path, line, serves=False) == 1
    found, line = booted(boot, url)
    assert found == first
    # That it is well says nothing of the newer one.
    assert well(boot, tmp_path, line) == 0
    found, line = booted(boot, url)
    assert well(boot, tmp_path, line, serves=False) == 1
    assert [booted(boot, url)[0] for _ in range(2)] == [first] * 2


def test_one_that_dies_at_once_is_not_well(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    """It has served for half a minute; what comes later is not counted."""
    url = serve()
    first, _ = booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    for _ in range(TRIES):
        _, boot.machine.line = booted(boot, url)
        boot.machine.slept = []
        assert healthy.main(boot.machine, tmp_path / "r", iter([True, False]).__next__) == 1
        assert boot.machine.slept == [healthy.STEADY]
    assert booted(boot, url)[0] == first
    assert booted(boot, url)[0] == second


@pytest.mark.parametrize(("words", "seconds"), [("", "60"), ("phase.watchdog=20", "20")])
def test_only_a_start_that_is_counted_is_watched(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path, words: str, seconds: str
) -> None:
    url = serve()
    assert "phase.watched" not in booted(boot, url, words=words)[1]
    newer(repository, tmp_path)
    url = serve()
    assert f" phase.watched={seconds} " in booted(boot, url, words=words)[1]
    for more in ("phase.watchdog=off", "phase.nowrite", "phase.cache=off phase.watched=9"):
        assert "phase.watched" not in booted(boot, url, words=more)[1]
    # The one before.
    assert "phase.watched" not in booted(boot, url, words=words)[1]


def test_one_that_came_back_from_a_release_without_a_rootfs_says_nothing(
    boot: Boot, repository: Repository, tmp_path: Path
) -> None:
    before = repository.manifest("stable", ARCH).artifacts["rootfs"].sha256
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    repository.add(
        "stable", ARCH, {"kernel": tmp_path / "r-kernel"}, cmdline="", release="2.0.0", fall_back=True
    )
    repository.publish()
    boot.prepared()
    assert well(boot, tmp_path, f"phase.rootfs=sha256:{before}", serves=False) == 0


def test_without_a_provider_too(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    url = serve()
    first, _ = booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    boot.machine.etc["allow-offline"] = b""
    assert [booted(boot, each)[0] for each in (url, NOBODY, NOBODY)] == [second, second, first]


def test_where_none_is_named_or_nothing_may_be_written_nothing_is_counted(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    url = serve()
    booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    assert {booted(boot, url, words="phase.nowrite")[0] for _ in range(TRIES + 1)} == {second}
    third = newer(repository, tmp_path, "3.0.0", fall_back=False)
    url = serve()
    assert {booted(boot, url)[0] for _ in range(TRIES + 1)} == {third}
    publisher = floor.publisher(boot.machine.etc["root.json"])
    assert not (kept / f"tries-{publisher}").exists()


@pytest.mark.parametrize("text", [b"", b"x", b"\xff", b"a b 2", b"NAME 9999999", b"NAME x 0", b"NAME 9 0 0"])
def test_a_count_that_is_damaged_is_none(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path, text: bytes
) -> None:
    url = serve()
    booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    publisher = floor.publisher(boot.machine.etc["root.json"])
    name = fallback.name(repository.manifest("stable", ARCH)).encode()
    (kept / f"tries-{publisher}").write_bytes(text.replace(b"NAME", name))
    assert booted(boot, url)[0] == second


def test_where_the_one_before_is_lost_the_newest_is_tried_again(
    boot: Boot, repository: Repository, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    url = serve()
    before = repository.manifest("stable", ARCH)
    booted(boot, url)
    second = newer(repository, tmp_path)
    url = serve()
    for _ in range(TRIES):
        booted(boot, url)
    for artifact in before.artifacts.values():
        if artifact.name != "initramfs":
            (kept / "blobs/sha256" / artifact.content).unlink()
            (tmp_path / "r/blobs/sha256" / artifact.sha256).unlink()
    assert booted(boot, url, words="phase.mdns=off")[0] == second
