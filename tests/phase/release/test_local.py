"""A directory nobody signed: signed here, kept signed, and it says so."""

import errno
import fcntl
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from phase import trust
from phase.provider import catalog
from phase.release import keys, lock, prune
from phase.release.artifacts import find_artifacts
from phase.release.errors import ManifestError, RepositoryError
from phase.release.local import LocalRepository
from phase.release.repository import Repository


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "artifacts" / "stable" / "x86_64"
    directory.mkdir(parents=True)
    (directory / "vmlinuz").write_bytes(b"kernel")
    (directory / "initrd.img").write_bytes(b"initramfs")
    (directory / "rootfs.squashfs").write_bytes(b"rootfs")
    (directory / "cmdline").write_text("quiet  panic=-1\n")
    return directory


@pytest.fixture
def local(tmp_path: Path, source: Path) -> LocalRepository:
    return LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "amd64")


def refresh(local: LocalRepository, now: datetime) -> trust.Refreshed:
    metadata = local.directory / "metadata"

    def get(name: str, max_bytes: int) -> bytes:
        try:
            return (metadata / name).read_bytes()
        except FileNotFoundError:
            raise trust.NotFoundError(name) from None

    root = (metadata / "1.root.json").read_bytes()
    return trust.refresh(root, get, channel="stable", arch="x86_64", now=now)


def test_a_first_run_signs_what_is_there_and_says_so(local: LocalRepository, now: datetime) -> None:
    done = local.refresh(now=now)
    assert done.created
    assert done.signed == ("stable-x86_64 is new",)
    assert "keys of this machine only" in "\n".join(done.lines)
    manifest = refresh(local, now).manifest
    assert sorted(manifest.artifacts) == ["initramfs", "kernel", "rootfs"]
    assert manifest.cmdline == "quiet panic=-1"
    assert manifest.release.startswith("local-")
    assert {stat.S_IMODE(path.stat().st_mode) for path in local.keys.iterdir()} == {0o600}


def test_nothing_is_signed_again_without_a_reason(local: LocalRepository, now: datetime) -> None:
    local.refresh(now=now)
    before = refresh(local, now)
    done = local.refresh(now=now + timedelta(days=1))
    assert (done.created, done.signed, done.lines) == (False, (), ())
    assert refresh(local, now) == before


@pytest.mark.parametrize("name", ["vmlinuz", "cmdline", "dtb-board"])
def test_what_changes_is_signed_anew(local: LocalRepository, source: Path, now: datetime, name: str) -> None:
    local.refresh(now=now)
    (source / name).write_text("changed")
    assert local.refresh(now=now).signed == ("stable-x86_64 has changed",)
    assert refresh(local, now).manifest.version == 2


def test_a_file_is_signed_when_it_is_complete(
    local: LocalRepository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.refresh()
    assert local.keep_up() is None
    with (source / "vmlinuz").open("wb") as copy:
        for _ in range(5):
            copy.write(b"part of a kernel")
            copy.flush()
            assert local.keep_up() is None
    done = local.keep_up()
    assert done is not None
    assert done.signed == ("stable-x86_64 has changed",)
    kernel = refresh(local, datetime.now(UTC)).manifest.artifacts["kernel"]
    assert kernel.length == 5 * len(b"part of a kernel")
    assert local.keep_up() is None
    # What expires is renewed all the same.
    monkeypatch.setattr("phase.release.local.RENEW_SECONDS", 0.0)
    assert local.keep_up() is not None


def test_what_changes_while_it_is_read_is_not_signed(
    local: LocalRepository, source: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.refresh(now=now)
    add = Repository.add

    def disturbed(self: Repository, *args: Any, **named: Any) -> None:
        add(self, *args, **named)
        (source / "rootfs.squashfs").write_bytes(b"rootfs, half of")

    (source / "vmlinuz").write_bytes(b"another")
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "add", disturbed)
        with pytest.raises(RepositoryError, match="was written to while it was read"):
            local.refresh(now=now)
    assert refresh(local, now).manifest.version == 1
    local.refresh(now=now)
    assert refresh(local, now).manifest.version == 2


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(
    local: LocalRepository, source: Path, now: datetime
) -> None:
    local.refresh(now=now)
    status = (source / "vmlinuz").stat()
    (source / "new").write_bytes(b"KERNEL")
    os.utime(source / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(source / "new", source / "vmlinuz")
    assert local.refresh(now=now).signed == ("stable-x86_64 has changed",)


def test_the_timestamp_is_renewed_in_time(local: LocalRepository, now: datetime) -> None:
    local.refresh(now=now)
    later = now + timedelta(days=5)
    assert local.refresh(now=later).signed == ("timestamp expires soon",)
    found = refresh(local, later + timedelta(days=6))
    assert (found.manifest.version, found.floor.timestamp, found.floor.snapshot) == (1, 2, 1)


def test_a_whole_year_of_refreshes_never_expires(local: LocalRepository, now: datetime) -> None:
    for day in range(0, 365, 3):
        local.refresh(now=now + timedelta(days=day))
        refresh(local, now + timedelta(days=day + 3))


def test_the_other_architecture_joins_the_same_repository(
    local: LocalRepository, source: Path, tmp_path: Path, now: datetime
) -> None:
    local.refresh(now=now)
    source.rename(source.parent / "arm64")
    other = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "arm64")
    assert other.refresh(now=now).signed == ("stable-arm64 is new",)
    assert sorted(Repository.open(local.directory).releases()) == [("stable", "arm64"), ("stable", "x86_64")]


def test_a_seed_may_have_a_uki(source: Path) -> None:
    (source / "linux.efi").write_bytes(b"MZ")
    assert find_artifacts(source)["uki"].name == "linux.efi"


def test_the_plain_name_counts_before_its_aliases(source: Path) -> None:
    (source / "kernel").write_bytes(b"the one")
    assert find_artifacts(source)["kernel"].name == "kernel"


def test_a_directory_without_a_kernel_says_what_it_has(local: LocalRepository, source: Path) -> None:
    (source / "vmlinuz").unlink()
    with pytest.raises(RepositoryError, match=r"no kernel in .*; it has cmdline, initrd.img"):
        local.refresh()
    assert not local.directory.exists()


def test_a_missing_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no artifacts at .*Put kernel"):
        LocalRepository(tmp_path, tmp_path / "state", "stable", "arm64").refresh()


def test_a_command_line_that_cannot_be_signed_is_refused(local: LocalRepository, source: Path) -> None:
    (source / "cmdline").write_bytes(b"quiet \xff")
    with pytest.raises(ManifestError, match="not a kernel command line"):
        local.refresh()


def test_a_lost_scan_costs_one_signature(local: LocalRepository, tmp_path: Path, now: datetime) -> None:
    local.refresh(now=now)
    (tmp_path / "state" / "scanned.json").write_bytes(b"\xff")
    assert local.refresh(now=now).signed == ("stable-x86_64 has changed",)
    assert local.refresh(now=now).signed == ()


def test_two_providers_with_one_state_do_not_mix(
    local: LocalRepository, source: Path, tmp_path: Path, now: datetime
) -> None:
    local.refresh(now=now)
    served = {path: path.read_bytes() for path in local.directory.rglob("*") if path.is_file()}
    other = tmp_path / "others" / "stable" / "x86_64"
    other.mkdir(parents=True)
    (other / "kernel").write_bytes(b"another kernel")
    second = LocalRepository(tmp_path / "others", tmp_path / "state", "stable", "amd64")
    with pytest.raises(RepositoryError, match=r"belongs to the artifacts in .*/artifacts, not to .*/others"):
        second.refresh(now=now)
    assert {path: path.read_bytes() for path in local.directory.rglob("*") if path.is_file()} == served
    # A state of its own is what it needs.
    LocalRepository(tmp_path / "others", tmp_path / "state2", "stable", "amd64").refresh(now=now)
    assert local.refresh(now=now).signed == ()


def test_a_state_that_another_directory_has_taken_is_left_alone(
    local: LocalRepository, source: Path, tmp_path: Path
) -> None:
    """Also by a provider that runs already."""
    local.refresh()
    (tmp_path / "state" / "artifacts.json").write_text('{"artifacts": "/others"}')
    (source / "vmlinuz").write_bytes(b"changed")
    local.keep_up()
    with pytest.raises(RepositoryError, match="belongs to the artifacts in /others"):
        local.keep_up()


@pytest.mark.parametrize("way", ["another name", "a link", "a moved directory", "a damaged note"])
def test_the_same_artifacts_by_another_way(
    local: LocalRepository, source: Path, tmp_path: Path, now: datetime, way: str
) -> None:
    local.refresh(now=now)
    place, note = tmp_path / "artifacts", tmp_path / "state" / "artifacts.json"
    if way == "another name":
        place = tmp_path / "state" / ".." / "artifacts"
    elif way == "a link":
        place = tmp_path / "link"
        place.symlink_to(tmp_path / "artifacts")
    elif way == "a moved directory":
        place = (tmp_path / "artifacts").rename(tmp_path / "moved")
    else:
        note.write_bytes(b"\xff")
    again = LocalRepository(place, tmp_path / "state", "stable", "x86_64")
    if way in ("a moved directory", "a damaged note"):
        with pytest.raises(RepositoryError, match=f"emove (it|{note})"):
            again.refresh(now=now)
        note.unlink()
    again.refresh(now=now)


def test_a_state_that_somebody_else_signs_in_is_waited_for_and_named(
    local: LocalRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.refresh()
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.1)
    with (tmp_path / "state" / "lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError, match=r"process \d+ on .* has been signing in"):
            local.refresh()
    # The lock of a process that has died is gone.
    local.refresh()


def test_a_file_system_without_locks_is_named(
    local: LocalRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RepositoryError, match="has no locks: No locks available"):
        local.refresh()


def test_two_thousand_rebuilds_do_not_grow(local: LocalRepository, source: Path) -> None:
    """As many publications as matter for what is kept; the rule does not know how many there were."""
    for number in range(12):
        (source / "vmlinuz").write_bytes(b"kernel %d" % number)
        local.refresh()
    metadata = sorted(path.name for path in (local.directory / "metadata").iterdir())
    assert [name for name in metadata if "x86_64" in name] == [
        f"{number}.stable-x86_64.json" for number in (10, 11, 12, 8, 9)
    ]
    assert len([name for name in metadata if "snapshot" in name]) == 1 + prune.KEEP_VERSIONS
    blobs = {path.name for path in (local.directory / "blobs/sha256").iterdir()}
    kernels = [sha256(b"kernel %d" % number).hexdigest() in blobs for number in range(12)]
    assert kernels == [False] * 7 + [True] * 5, "whoever fetches one of the last four can finish"
    links = {path.name.partition(".")[0] for path in (local.directory / "targets").rglob("*.kernel")}
    assert links == {sha256(b"kernel %d" % number).hexdigest() for number in range(7, 12)}
    assert refresh(local, datetime.now(UTC)).manifest.version == 12
    catalog.load(local.directory)


def test_what_was_replaced_an_hour_ago_is_removed(local: LocalRepository, source: Path) -> None:
    for number in range(3):
        (source / "vmlinuz").write_bytes(b"kernel %d" % number)
        local.refresh()
    (local.directory / "blobs/sha256/.0123.tmp").write_bytes(b"half a copy")
    published = Repository.open(local.directory)
    assert prune.prune(published, now=time.time() + prune.KEEP_SECONDS + 60) == (0, 2)
    left = {path.name for path in (local.directory / "blobs/sha256").iterdir()}
    assert left == {
        artifact.sha256 for artifact in published.manifest("stable", "x86_64").artifacts.values()
    }
    refresh(local, datetime.now(UTC))


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_prune_removes_no_blob_while_the_published_manifest_cannot_be_read(
    local: LocalRepository, damage: str
) -> None:
    local.refresh()
    published = Repository.open(local.directory, keys=keys.load(local.keys))
    manifest = local.directory / "metadata/1.stable-x86_64.json"
    if damage == "missing":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:-1])
    with pytest.raises(RepositoryError, match="cannot be pruned" if damage == "missing" else "is damaged"):
        prune.prune(published)
    assert len(list((local.directory / "blobs/sha256").iterdir())) == 3


@pytest.mark.parametrize("kind", ["a directory", "a loop", "a pipe", "a way out"])
def test_a_command_line_that_is_not_a_file_is_refused_and_healed(
    local: LocalRepository, source: Path, kind: str
) -> None:
    local.refresh()
    path = source / "cmdline"
    path.unlink()
    if kind == "a directory":
        path.mkdir()
    elif kind == "a loop":
        path.symlink_to("cmdline")
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/hostname")
    with pytest.raises(RepositoryError, match=r"/cmdline cannot be read: "):
        local.keep_up()
    path.rmdir() if kind == "a directory" else path.unlink()
    path.write_text("quiet panic=-1")
    (source / "vmlinuz").write_bytes(b"new kernel")
    local.keep_up()
    done = local.keep_up()
    assert done is not None
    assert done.signed == ("stable-x86_64 has changed",)


@pytest.mark.parametrize("name", ["vmlinuz", "dtb-board", "rootfs.squashfs"])
@pytest.mark.parametrize("way", ["absolute", "relative", "by a directory", "a pipe", "a device"])
def test_links_served_lead_nowhere_else(
    local: LocalRepository, source: Path, tmp_path: Path, name: str, way: str
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"not to be served")
    path = source / name
    path.unlink(missing_ok=True)
    if way == "absolute":
        path.symlink_to(secret / "file")
    elif way == "relative":
        path.symlink_to("../../../secret/file")
    elif way == "by a directory":
        (source / "builds").symlink_to(secret)
        path.symlink_to("builds/file")
    elif way == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(
        RepositoryError, match=f"/{name} cannot be read: (not a plain file|a link leads out of)"
    ):
        local.refresh()
    assert not list(tmp_path.glob("state/tree/blobs/sha256/*"))


@pytest.mark.parametrize("way", ["relative", "absolute", "the architecture", "the artifacts"])
def test_links_within_the_artifacts_are_followed(
    local: LocalRepository, source: Path, tmp_path: Path, now: datetime, way: str
) -> None:
    artifacts = tmp_path / "artifacts"
    (artifacts / "builds").mkdir()
    if way in ("relative", "absolute"):
        (source / "vmlinuz").rename(artifacts / "builds" / "42")
        (source / "vmlinuz").symlink_to(
            "../../builds/42" if way == "relative" else artifacts / "builds" / "42"
        )
    elif way == "the architecture":
        source.rename(artifacts / "builds" / "x86_64")
        source.symlink_to("../builds/x86_64")
    else:
        artifacts.rename(tmp_path / "elsewhere")
        artifacts.symlink_to("elsewhere")
    local.refresh(now=now)
    assert refresh(local, now).manifest.artifacts["kernel"].sha256 == sha256(b"kernel").hexdigest()


class Clock:
    """A clock that can be set."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def test_the_clock_is_set_and_everything_is_signed_anew(tmp_path: Path, source: Path, now: datetime) -> None:
    """A machine without a battery: 1970, then the right time."""
    clock = Clock(datetime(1970, 1, 1, 0, 1, tzinfo=UTC))
    local = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "x86_64", clock=clock)
    local.refresh()
    assert local.keep_up() is None
    clock.now = now
    with pytest.raises(trust.TrustError):
        refresh(local, now)
    done = local.keep_up()
    assert done is not None
    assert {reason.split()[0] for reason in done.signed} >= {"root", "timestamp", "snapshot", "targets"}
    refresh(local, now + timedelta(days=3))
    assert local.keep_up() is None


def test_after_a_week_of_sleep_it_is_signed_anew(tmp_path: Path, source: Path, now: datetime) -> None:
    clock = Clock(now)
    local = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "x86_64", clock=clock)
    local.refresh()
    clock.now += timedelta(days=8)
    assert local.keep_up() is not None
    refresh(local, clock.now + timedelta(days=3))


def test_a_clock_that_was_ahead_leaves_no_timestamp_for_years(
    tmp_path: Path, source: Path, now: datetime
) -> None:
    clock = Clock(now + timedelta(days=3650))
    local = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "x86_64", clock=clock)
    local.refresh()
    clock.now = now
    done = local.keep_up()
    assert done is not None
    assert set(done.signed) == {"snapshot held for too long", "timestamp held for too long"}
    assert Repository.open(local.directory).timestamp_expires < now + timedelta(days=8)
    assert local.keep_up() is None
    # A clock that was never set shortens nothing.
    clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    assert local.refresh().signed == ()


def test_what_is_served_is_renewed_while_its_artifacts_cannot_be_read(
    tmp_path: Path, source: Path, now: datetime
) -> None:
    clock = Clock(now)
    local = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "x86_64", clock=clock)
    local.refresh()
    (source / "vmlinuz").unlink()
    clock.now += timedelta(days=6)
    with pytest.raises(RepositoryError, match="no kernel in"):
        local.keep_up()
    renewed = refresh(local, clock.now + timedelta(days=3)).floor.timestamp
    with pytest.raises(RepositoryError, match="no kernel in"):
        local.keep_up()
    assert refresh(local, clock.now).floor.timestamp == renewed, "that was enough for some days"
