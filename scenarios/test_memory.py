"""Machines with just enough memory for a release, and with too little."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net.hostport import refusal
from lab.plugin import Record
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop
from scenarios.serving import serving

#: MiB of a machine that boots the release of the lab (40 MB; on arm64 52), and of one that does not.
ENOUGH = {"x86_64": 224, "arm64": 304}
TOO_LITTLE = {"x86_64": 192, "arm64": 240}
#: MiB that a release of some 160 MB may ask for at the most. An arm64 kernel keeps 64 MiB for files only.
BIG = {"x86_64": 512, "arm64": 576}
_NEEDS = r"phase: giving up at fetch: release 1\.0\.0 needs (\d+) MB of memory, this machine has (\d+) MB"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@contextlib.contextmanager
def _served(loop: Loop, release: Release) -> Iterator[str]:
    """A provider of a release on the host; its address."""
    if why := refusal():
        pytest.skip(why)
    port = loop.lab.host_port("provider", loop.lan)
    with serving(release.directory, "--port", str(PORT), port=port):
        yield f"http://{port.address.ip}:{PORT}"


def _padded(loop: Loop, directory: Path, megabytes: int) -> Release:
    """The same release with so many MiB of noise behind its rootfs."""
    made = Repository.create(directory / "big", keys=release_keys.load(KEYS / "lab"))
    found = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts
    files = {name: loop.release.blob(artifact.sha256) for name, artifact in found.items()}
    rootfs = directory / "rootfs"
    with rootfs.open("wb") as out:
        out.write(files["rootfs"].read_bytes())
        for _ in range(megabytes):
            out.write(os.urandom(1 << 20))
    made.add(CHANNEL, loop.arch, files | {"rootfs": rootfs}, cmdline=SIGNED_CMDLINE, release="1.0.0")
    made.publish()
    return Release(directory / "big", made)


def _refused(loop: Loop, url: str, memory: int, name: str) -> int:
    """A machine refuses a release for its memory, right after it is trusted; the MiB that it needs."""
    client = loop.boot_vm(f"phase.provider={url}", memory=memory, name=name)
    said = client.console.wait_line(_NEEDS, timeout=90)
    assert int(said[2]) == memory
    final = client.console.wait(
        lambda: next((found for found in client.marks if found.facts.get("final")), None),
        "mark that is its last",
        timeout=30,
    )
    assert (final.step, [mark.outcome for mark in client.marks if mark.step == "trust"]) == ("fetch", ["ok"])
    assert len([mark for mark in client.marks if mark.step == "discover"]) == 1, "it is not tried again"
    loop.never_handed_over(client)
    client.stop()
    return int(said[1])


@pytest.mark.lab(vcpus=0.7, seconds=70)
def test_little_memory_is_said_right_after_trust(loop: Loop) -> None:
    """What the message names is enough, and a little less is refused with the same number."""
    with _served(loop, loop.release) as url:
        needs = _refused(loop, url, TOO_LITTLE[loop.arch], "little")
        assert TOO_LITTLE[loop.arch] < needs <= ENOUGH[loop.arch]
        client = loop.boot_vm(f"phase.provider={url}", memory=needs + 1)
        loop.reaches_job(client)
        loop.report(f"{needs + 1} MiB of memory", client)
        loop.receipt_holds(client)


@pytest.mark.lab(memory=1600, vcpus=0.7, seconds=110)
def test_a_big_release_on_a_small_machine(loop: Loop, tmp_path: Path) -> None:
    """More than a third of memory: it boots where it fits, and is refused before the fetch where not."""
    with _served(loop, _padded(loop, tmp_path, 120)) as url:
        needs = _refused(loop, url, 384, "little")
        assert 400 < needs <= BIG[loop.arch]
        client = loop.boot_vm(f"phase.provider={url}", memory=needs + 1)
        loop.reaches_job(client)
        loop.report(f"a release of 160 MB on {needs + 1} MiB", client)
