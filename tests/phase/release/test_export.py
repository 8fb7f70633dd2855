"""An exported tree is made whole again, whatever happened to it."""

import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from phase.release import check
from phase.release.errors import RepositoryError
from phase.release.export import export
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository


@pytest.mark.parametrize("linked", [True, False])
def test_what_is_damaged_is_written_anew(repository: Repository, tmp_path: Path, linked: bool) -> None:
    """As by a power cut: of the right size, and zeros."""
    repository.publish()
    target = tmp_path / "public"
    assert export(repository, target) > 0
    assert export(repository, target) == 0
    kernel = repository.manifest("stable", "x86_64").artifacts["kernel"]
    blob = target / "blobs/sha256" / kernel.sha256
    link = target / "targets/stable/x86_64" / f"{kernel.sha256}.kernel"
    assert link.samefile(blob)
    good = blob.read_bytes()
    damaged = blob if linked else link
    if not linked:
        link.unlink()
    damaged.write_bytes(bytes(len(good)))
    assert export(repository, target) > 0
    assert blob.read_bytes() == link.read_bytes() == good
    assert export(repository, target) == 0


def test_a_newer_root_is_exported_after_all_that_it_signs(
    repository: Repository,
    keys: ReleaseKeys,
    now: datetime,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever the export breaks off, a reader finds releases that verify: the old or the new."""
    root = (repository.directory / "metadata/1.root.json").read_bytes()
    target = tmp_path / "public"
    export(repository, target)
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.rotate(ReleaseKeys.from_seed("new"))
    again.publish()
    replace = os.replace
    written = 1
    left = 0

    def failing(source: str, place: str, **more: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        replace(source, place, **more)

    monkeypatch.setattr(os, "replace", failing)
    versions = []
    while True:
        left = written
        try:
            export(again, target)
            break
        except RepositoryError:
            found = check.verify(target, root, channel="stable", arch="x86_64", now=now)
            versions.append(found.floor.root)
        written = 1
    assert check.verify(target, root, channel="stable", arch="x86_64", now=now).floor.root == 2
    assert len(versions) > 3
    assert versions[:-1] == [1] * (len(versions) - 1)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "hard link"])
def test_what_others_have_put_there_is_replaced_and_never_written_to(
    repository: Repository, tmp_path: Path, kind: str
) -> None:
    """Whoever may write to the tree, a web server for example, names files that are not his."""
    target, victim = tmp_path / "public", tmp_path / "victim"
    export(repository, target)
    good = tree(target)
    victim.write_bytes(b"precious")
    names = [path for path in target.rglob("*") if path.is_file()]
    blob = repository.manifest("stable", "x86_64").artifacts["kernel"].sha256
    guessed = [target / "blobs/sha256" / f".{blob}.tmp", target / "metadata" / ".timestamp.json.tmp"]
    for path in (*names, *guessed):
        path.unlink(missing_ok=True)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "hard link":
            os.link(victim, path)
        else:
            path.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    assert export(repository, target) == len(names)
    for path in guessed:
        path.unlink()
    assert tree(target) == good
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert victim.read_bytes() == b"precious"
    assert victim.stat().st_nlink == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("place", ["blobs", "blobs/sha256", "metadata", "targets", "targets/stable"])
def test_no_directory_below_what_is_exported_may_be_a_link(
    repository: Repository, tmp_path: Path, place: str
) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "public" / place
    elsewhere.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with pytest.raises(RepositoryError, match=f"{place} cannot be written: .*no link is followed"):
        export(repository, tmp_path / "public")
    assert list(elsewhere.iterdir()) == []


def test_a_damaged_blob_is_not_exported(repository: Repository, tmp_path: Path) -> None:
    kernel = repository.manifest("stable", "x86_64").artifacts["kernel"].sha256
    blob = repository.directory / "blobs/sha256" / kernel
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(data)))
    with pytest.raises(RepositoryError, match="is not the blob that its name says"):
        export(repository, tmp_path / "public")
    assert [path.name for path in (tmp_path / "public/blobs/sha256").iterdir() if path.name == kernel] == []


def test_what_a_killed_export_has_left_is_removed(repository: Repository, tmp_path: Path) -> None:
    target = tmp_path / "public"
    export(repository, target)
    for place in ("metadata", "blobs/sha256", "targets/stable/x86_64"):
        for name, age in ((".old.0011223344556677.tmp", 7200), (".new.0011223344556677.tmp", 60)):
            left = target / place / name
            left.write_bytes(b"part")
            os.utime(left, (time.time() - age,) * 2)
    assert export(repository, target) == 0
    assert {path.name for path in target.rglob("*.tmp")} == {".new.0011223344556677.tmp"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_account_has_exported_and_everybody_reads_is_left(
    repository: Repository, tmp_path: Path
) -> None:
    target = tmp_path / "public"
    export(repository, target)
    for path in target.rglob("*"):
        os.chown(path, 4711, 4711)
    assert export(repository, target) == 0
    assert {path.stat().st_uid for path in target.rglob("*") if path.is_file()} == {4711}


def test_leftovers_of_an_export_that_was_killed_go_when_they_are_old(
    repository: Repository, tmp_path: Path
) -> None:
    target = tmp_path / "public"
    export(repository, target)
    places = [target / name for name in ("metadata", "blobs/sha256", "targets/stable/x86_64")]
    old, new, theirs = ".a.tmp", ".b.tmp", ".theirs"
    for place in places:
        for name in (old, new, theirs):
            (place / name).write_text("")
        for name in (old, theirs):
            os.utime(place / name, (time.time() - 4000,) * 2)
        os.utime(place / new, (time.time() - 3000,) * 2)
        (place / ".directory.tmp").mkdir()
        os.utime(place / ".directory.tmp", (0, 0))
    export(repository, target)
    for place in places:
        found = {path.name for path in place.iterdir() if path.name.startswith(".")}
        assert found == {new, theirs, ".directory.tmp"}
