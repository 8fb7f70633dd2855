"""The loop on UEFI: firmware with tables, run-time services and a memory of its own."""

import shutil
from pathlib import Path

import pytest

from lab.net.hostport import refusal
from lab.plugin import Record
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios import lab_guest
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop, mark
from scenarios.serving import serving


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
    with loop.provided(name="newer"):
        client = loop.boot_vm("phase.timeout=45", firmware=lab_guest.FIRMWARE[loop.arch], memory=768)
        loop.reaches_job(client)
        loop.report("UEFI", client)
        loop.handed_over(client)
        loop.receipt_holds(client)
        client.stop()

    older = Release(tmp_path / "old", Repository.open(tmp_path / "old"))
    with loop.provided(older, name="older"):
        client.start()
        refused = loop.refuses(client, step="trust")
        assert "was trusted before" in str(refused.facts["reason"])
        assert mark(client, "discover").outcome == "ok"
        loop.never_handed_over(client)


def _releases(loop: Loop, keys: str) -> tuple[Release, Release]:
    """An older and a newer release of a publisher."""
    directory = loop.work / keys
    repository = Repository.create(directory / "newer", keys=release_keys.load(KEYS / keys))
    artifacts = {
        name: loop.release.blob(artifact.sha256)
        for name, artifact in loop.release.repository.manifest(CHANNEL, loop.arch).artifacts.items()
    }
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.0")
    repository.publish()
    shutil.copytree(directory / "newer", directory / "older", symlinks=True)
    older = Release(directory / "older", Repository.open(directory / "older"))
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.1")
    repository.publish()
    return older, Release(directory / "newer", repository)


@pytest.mark.lab(vcpus=0.6, seconds=170)
def test_two_publishers_seeds_by_turns_keep_their_floors(loop: Loop) -> None:
    """One machine boots one's seed, then the other's, and the first's again; then neither goes back."""
    if why := refusal():
        pytest.skip(why)
    ours, theirs = _releases(loop, "lab"), _releases(loop, "stranger")
    port = loop.lab.host_port("providers", loop.lan)
    loop.release = ours[0]
    url = f"http://{port.address.ip}:{PORT}"
    client = loop.boot_vm(
        f"phase.provider={url} phase.mdns=off phase.timeout=60",
        firmware=lab_guest.FIRMWARE[loop.arch],
        memory=768,
        on=False,
    )
    for release in (ours[0], theirs[1], ours[1]):
        # The same machine, its variables too, with another seed.
        release.seed(loop.arch, loop.work)
        with serving(release.directory, "--port", str(PORT), "--no-mdns", port=port):
            client.start()
            client.wait_mark("handoff", timeout=180)
            assert mark(client, "trust").facts["version"] == (1 if release is ours[0] else 2)
            if release is ours[1]:
                client.wait_mark("job", timeout=180)
                loop.report("two publishers by turns on UEFI", client)
        client.stop()
    for older, _ in (theirs, ours):
        older.seed(loop.arch, loop.work)
        with serving(older.directory, "--port", str(PORT), "--no-mdns", port=port):
            client.start()
            refused = loop.refuses(client, step="trust")
            assert "version 2 was trusted before" in str(refused.facts["reason"])
        client.stop()
