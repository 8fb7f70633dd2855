"""The loop on UEFI: firmware with tables, run-time services and a memory of its own."""

import shutil
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios import lab_guest
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import Loop, mark


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(vcpus=0.5, seconds=100)
def test_firmware_hands_over_and_remembers(loop: Loop, tmp_path: Path) -> None:
    """It boots, and after that refuses an older release, though it has no disk."""
    repository = Repository.create(tmp_path / "new", keys=release_keys.load(KEYS / "lab"))
    artifacts = {
        name: loop.release.blob(artifact.sha256)
        for name, artifact in loop.release.repository.manifest(CHANNEL, loop.arch).artifacts.items()
    }
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.0")
    repository.publish()
    shutil.copytree(tmp_path / "new", tmp_path / "old", symlinks=True)
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.1")
    repository.publish()

    loop.release = Release(tmp_path / "new", repository)
    server = loop.serve()
    client = loop.boot_vm("phase.timeout=45", firmware=lab_guest.FIRMWARE[loop.arch], memory=768)
    loop.reaches_job(client)
    loop.report("UEFI", client)
    loop.handed_over(client)
    loop.receipt_holds(client)
    client.stop()
    server.stop()

    loop.serve(release=Release(tmp_path / "old", Repository.open(tmp_path / "old")), name="older")
    client.start()
    refused = loop.refuses(client, step="trust")
    assert "was trusted before" in str(refused.facts["reason"])
    assert mark(client, "discover").outcome == "ok"
    loop.never_handed_over(client)
