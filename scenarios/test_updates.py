"""A system that runs becomes the next release by itself, and fetches only what is new."""

import shutil
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.release import keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release, built
from scenarios.loop import Loop, mark

#: MiB: it holds the release that runs, and twice the one that comes.
MEMORY = 768


@pytest.fixture
def loop(lab: Lab, record: Record, arch: str, tmp_path: Path) -> Loop:
    """With a repository of its own."""
    return Loop(lab, record, Release.publish(tmp_path / "first", arches=(arch,)), arch, tmp_path)


def next_release(loop: Loop) -> Release:
    """The repository with one more release: a line more, and a rootfs that ends a little later."""
    directory = loop.work / "second"
    shutil.copytree(loop.release.directory, directory, symlinks=True)
    repository = Repository.open(directory, keys=keys.load(KEYS / "lab"))
    (system,) = built((loop.arch,))
    rootfs = loop.work / "rootfs"
    rootfs.write_bytes(system.rootfs.read_bytes() + bytes(4096))
    artifacts = system.artifacts() | {"rootfs": rootfs}
    line = f"{SIGNED_CMDLINE} second"
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=line, release="2.0.0")
    repository.publish()
    return Release(directory, repository)


def again(client: VM, step: str, times: int) -> None:
    """Wait until a step has been marked so often."""

    def often() -> bool | None:
        found = [found for found in client.marks if (found.step, found.outcome) == (step, "ok")]
        return len(found) >= times or None

    client.console.wait(often, f"mark of {step}, for the {times}. time", timeout=180)


@pytest.mark.lab(memory=MEMORY, seconds=120)
def test_a_running_system_becomes_the_next_release(loop: Loop) -> None:
    """On command: it says that there is one, fetches the few bytes that it lacks, and is it."""
    with loop.provided(name="one"):
        client = loop.boot_vm(memory=MEMORY)
        loop.reaches_job(client)
        shell = client.shell()
        assert "this system is the newest release" in shell.succeed("python3 -s -m phase update", timeout=60)
    second = next_release(loop)
    with loop.provided(second, name="two"):
        said = shell.succeed("python3 -s -m phase update", timeout=60)
        assert "release 2.0.0 (version 2) is newer" in said
        before = mark(client, "kernel2").facts["boot_id"]
        shell.succeed("python3 -s -m phase update --now >/run/update 2>&1 &")
        again(client, "job", 2)
    fetched = [found for found in client.marks if found.step == "fetch"][-1].facts
    length, reused = int(str(fetched["bytes"])), int(str(fetched["reused"]))
    assert length - reused <= 0.05 * length
    started = [found for found in client.marks if found.step == "kernel2"][-1].facts["boot_id"]
    assert started != before
    shell = client.shell()
    assert shell.succeed("cat /proc/sys/kernel/random/boot_id") == started
    rootfs = second.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
    line = shell.succeed("cat /proc/cmdline").split()
    assert {"second", f"phase.rootfs=sha256:{rootfs}", "phase.job=hello"} <= {*line}
    loop.report("update of a running system", client)
