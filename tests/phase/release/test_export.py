"""An exported tree is made whole again, whatever happened to it."""

from pathlib import Path

import pytest

from phase.release.export import export
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
