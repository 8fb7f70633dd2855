"""A directory nobody signed: signed here, kept signed, and it says so."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from phase import trust
from phase.release.errors import ManifestError, RepositoryError
from phase.release.local import LocalRepository, find_artifacts
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
    with pytest.raises(ManifestError, match="no kernel command line"):
        local.refresh()


def test_a_lost_scan_costs_one_signature(local: LocalRepository, tmp_path: Path, now: datetime) -> None:
    local.refresh(now=now)
    (tmp_path / "state" / "scanned.json").write_bytes(b"\xff")
    assert local.refresh(now=now).signed == ("stable-x86_64 has changed",)
    assert local.refresh(now=now).signed == ()
