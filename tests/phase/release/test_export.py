"""An exported tree is made whole again, whatever happened to it."""

import os
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

    def failing(source: Path, place: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        replace(source, place)

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
