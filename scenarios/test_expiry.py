"""What has expired is taken where the image says so, and nowhere else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import Loop, mark

_DAY = 86_400


@pytest.fixture
def overdue(release: Release, arch: str, tmp_path: Path) -> Release:
    """The session's release, signed ten days ago: its timestamp held for seven."""
    then = datetime.now(UTC) - timedelta(days=10)
    repository = Repository.create(tmp_path / "overdue", keys=release_keys.load(KEYS / "lab"), now=then)
    artifacts = {
        name: release.blob(artifact.sha256)
        for name, artifact in release.repository.manifest(CHANNEL, arch).artifacts.items()
    }
    repository.add(CHANNEL, arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.0")
    repository.publish()
    return Release(tmp_path / "overdue", repository)


@pytest.mark.lab(vcpus=0.6, seconds=75)
def test_the_image_decides_what_expires(
    lab: Lab, record: Record, overdue: Release, arch: str, tmp_path: Path
) -> None:
    """Five days of grace in local mode: there it boots, and says by what; in any other it refuses."""
    loop = Loop(lab, record, overdue, arch, tmp_path)
    with loop.provided():
        _decides(loop)


def _decides(loop: Loop) -> None:
    client = loop.boot_vm("phase.mode=internet phase.timeout=20", name="strict", grace={"local": 5 * _DAY})
    refused = loop.refuses(client, step="trust")
    assert "timestamp.json expired at" in str(refused.facts["reason"])
    loop.never_handed_over(client)
    client.stop()
    client = loop.boot_vm("phase.mode=local phase.timeout=20", name="short", grace={"local": _DAY})
    assert "timestamp.json expired at" in str(loop.refuses(client, step="trust").facts["reason"])
    client.stop()
    client = loop.boot_vm("phase.mode=local", grace={"local": 5 * _DAY})
    loop.reaches_job(client)
    assert mark(client, "trust").facts["overdue"] == "timestamp.json"
    loop.report("overdue, within its grace", client)
    loop.handed_over(client)
