"""What a machine keeps between boots: releases, and what it must never go back behind."""

import hashlib
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.net.faults import Faults
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.release import check
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import Loop


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def _facts(vm: VM, step: str) -> dict[str, object]:
    return dict(next(mark for mark in vm.marks if mark.step == step and mark.outcome == "ok").facts)


def _size(loop: Loop) -> int:
    manifest = loop.release.repository.manifest(CHANNEL, loop.arch)
    return sum(artifact.length for artifact in manifest.artifacts.values())


def _digest(disk: Disk) -> str:
    with disk.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.lab(vcpus=0.6, seconds=130)
def test_a_kept_release_boots_when_nobody_gives_one(loop: Loop, disk: Disk) -> None:
    """The image allows it, and the release is verified as if a provider had sent it."""
    server = loop.serve(staged=True)
    client = loop.boot_vm(disks=(disk,), offline=True)
    loop.reaches_job(client)
    assert _facts(client, "fetch")["kept"] == 0
    client.stop()
    server.stop()

    client.start()
    client.wait_mark("job", timeout=180)
    assert _facts(client, "discover")["source"] == "cache"
    assert _facts(client, "fetch") | {"crc": ""} == {
        "bytes": _size(loop),
        "kept": _size(loop),
        "reused": 0,
        "sources": "",
        "crc": "",
    }
    loop.report("kept release", client)
    loop.handed_over(client)
    loop.receipt_holds(client)
    client.stop()

    # One byte of the kernel is another now: nobody is there to ask for it, so nothing boots.
    kernel = loop.release.blob(
        loop.release.repository.manifest(CHANNEL, loop.arch).artifacts["kernel"].sha256
    )
    image = bytearray(disk.path.read_bytes())
    place = image.index(kernel.read_bytes()[1 << 20 :][:4096])
    image[place] ^= 1
    disk.path.write_bytes(image)
    client.start()
    client.console.wait_line(r"phase: fetch: not from the cache: kernel", timeout=120)
    client.stop()


@pytest.mark.lab(seconds=50)
def test_a_power_cut_costs_only_what_was_not_written(loop: Loop, disk: Disk) -> None:
    """Killed in the middle of its fetch, it goes on where the disk says."""
    loop.serve(staged=True)
    client = loop.boot_vm(disks=(disk,))
    client.wait_mark("trust", timeout=90)
    # A third of the release in fifteen seconds.
    loop.lan.link(client).to_machine = Faults(rate=_size(loop) / 3 / 15)
    time.sleep(15)
    client.stop()

    loop.lan.link(client).to_machine = Faults()
    client.start()
    loop.reaches_job(client)
    kept = int(str(_facts(client, "fetch")["kept"]))
    assert 0 < kept < _size(loop)
    loop.report("power cut", client)
    loop.handed_over(client)


@pytest.mark.lab(seconds=60)
def test_nothing_is_written_where_nothing_may_be(loop: Loop, disk: Disk) -> None:
    """`phase.nowrite` reads what is kept and leaves the disk as it is; test_modes.py has private mode."""
    loop.serve(staged=True)
    client = loop.boot_vm(disks=(disk,))
    client.wait_mark("job", timeout=180)
    client.stop()
    before = _digest(disk)
    client = loop.boot_vm("phase.nowrite", name="nowrite", disks=(disk,))
    loop.reaches_job(client)
    assert _facts(client, "fetch")["kept"] == _size(loop)
    client.stop()
    assert _digest(disk) == before
    loop.report("nothing written", client)


def _older_and_newer(loop: Loop, directory: Path) -> tuple[Release, Release]:
    """Two releases of one repository; neither has expired."""
    repository = Repository.create(directory / "new", keys=release_keys.load(KEYS / "lab"))
    artifacts = {
        name: loop.release.blob(artifact.sha256)
        for name, artifact in loop.release.repository.manifest(CHANNEL, loop.arch).artifacts.items()
    }
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.0")
    repository.publish()
    shutil.copytree(directory / "new", directory / "old", symlinks=True)
    old = Release(directory / "old", Repository.open(directory / "old"))
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=SIGNED_CMDLINE, release="1.0.1")
    repository.publish()
    return old, Release(directory / "new", repository)


@pytest.mark.lab(vcpus=0.5, seconds=150)
def test_an_older_release_is_refused_after_a_reboot(loop: Loop, disk: Disk, tmp_path: Path) -> None:
    """The floor survives: what was current once, signed and not expired, is not taken any more."""
    old, new = _older_and_newer(loop, tmp_path)
    loop.release = old  # whose first root is that of both
    with loop.provided(new, name="newer"):
        client = loop.boot_vm("phase.timeout=45", disks=(disk,))
        loop.reaches_job(client)
        assert _facts(client, "trust")["release"] == "1.0.1"
        client.stop()

    with loop.provided(old, name="older"):
        client.start()
        refused = loop.refuses(client, step="trust")
        assert "older" in str(refused.facts["reason"]) or "version" in str(refused.facts["reason"])
        loop.report("older release", client)
        loop.never_handed_over(client)
        client.stop()
        # One that has no memory takes it: it is the floor that refused.
        other = loop.boot_vm(name="forgetful")
        other.wait_mark("trust", timeout=90)


@pytest.mark.lab(vcpus=0.7, seconds=85)
def test_an_image_with_a_floor_needs_no_memory(loop: Loop, tmp_path: Path) -> None:
    """Neither disk nor firmware keeps anything, and the older release is refused at the first boot."""
    old, new = _older_and_newer(loop, tmp_path)
    root = (new.directory / "metadata/1.root.json").read_bytes()
    floor = check.newest(new.directory, root, now=datetime.now(UTC))
    loop.release = old
    with loop.provided(old, name="older"):
        client = loop.boot_vm("phase.timeout=45", floor=floor)
        refused = loop.refuses(client, step="trust")
        assert "was trusted before" in str(refused.facts["reason"])
        loop.report("floor in the image", client)
        loop.never_handed_over(client)
        client.stop()

    with loop.provided(new, name="newer"):
        client.start()
        loop.reaches_job(client)
        assert _facts(client, "trust")["release"] == "1.0.1"
