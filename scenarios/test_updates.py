"""A system that runs becomes the next release by itself, and fetches only what is new."""

import random
import secrets
import shutil
import time
from io import BytesIO
from pathlib import Path

import pytest

from boot.tree import HERE
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.boot import cpio
from phase.release import keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release, built
from scenarios.loop import Loop, last, mark

#: MiB: it holds the release that runs, and twice the one that comes.
MEMORY = 768


@pytest.fixture
def loop(lab: Lab, record: Record, arch: str, tmp_path: Path) -> Loop:
    """With a repository of its own."""
    return Loop(lab, record, Release.publish(tmp_path / "first", arches=(arch,)), arch, tmp_path)


def next_release(
    loop: Loop,
    before: Release,
    words: str = "second",
    release: str = "2.0.0",
    *,
    fall_back: bool = False,
    hangs: bool = False,
) -> Release:
    """The repository with one more release: a word more, and a rootfs that ends a little later.

    Args:
        loop: whose machines are to boot it.
        before: the repository without it.
        words: of its command line.
        release: its version for people.
        fall_back: whether it names the release before it.
        hangs: whether its first process does, after all that comes before the system's own.
    """
    directory = loop.work / release
    shutil.copytree(before.directory, directory, symlinks=True)
    repository = Repository.open(directory, keys=keys.load(KEYS / "lab"))
    (system,) = built((loop.arch,))
    rootfs = loop.work / f"rootfs-{release}"
    rootfs.write_bytes(system.rootfs.read_bytes() + release.encode() * 800)
    artifacts = system.artifacts() | {"rootfs": rootfs}
    if hangs:
        artifacts["initramfs"] = _hanging(artifacts["initramfs"], loop.work / f"initramfs-{release}")
    line = f"{SIGNED_CMDLINE} {words}"
    repository.add(CHANNEL, loop.arch, artifacts, cmdline=line, release=release, fall_back=fall_back)
    repository.publish()
    return Release(directory, repository)


def _hanging(initramfs: Path, made: Path) -> Path:
    """An initramfs whose last line waits for ever."""
    first = (HERE / "files/system-init").read_text()
    assert "exec $b chroot" in first
    first = first.replace("exec $b chroot", "while :; do $b sleep 9; done; exec $b chroot")
    archive = BytesIO()
    cpio.write(archive, [cpio.regular("init", first.encode(), 0o755)])
    # A later archive's file takes the place of an earlier one's.
    made.write_bytes(initramfs.read_bytes() + bytes(-initramfs.stat().st_size % 4) + archive.getvalue())
    return made


def again(client: VM, step: str, times: int) -> None:
    """Wait until a step has been marked so often."""

    def often() -> bool | None:
        found = [found for found in client.marks if (found.step, found.outcome) == (step, "ok")]
        return len(found) >= times or None

    # One of the kernels on the way may die.
    client.console.wait(often, f"mark of {step}, for the {times}. time", timeout=240, deadly=False)


@pytest.mark.lab(memory=MEMORY, seconds=120)
def test_a_running_system_becomes_the_next_release(loop: Loop) -> None:
    """On command: it says that there is one, fetches the few bytes that it lacks, and is it."""
    with loop.provided(name="one"):
        client = loop.boot_vm(memory=MEMORY)
        loop.reaches_job(client)
        shell = client.shell()
        assert "this system is the newest release" in shell.succeed("python3 -s -m phase update", timeout=60)
    second = next_release(loop, loop.release)
    with loop.provided(second, name="two"):
        said = shell.succeed("python3 -s -m phase update", timeout=60)
        assert "release 2.0.0 (version 2) is newer" in said
        before = mark(client, "kernel2").facts["boot_id"]
        shell.succeed("python3 -s -m phase update --now >/run/update 2>&1 &")
        again(client, "job", 2)
    fetched = last(client, "fetch").facts
    length, reused = int(str(fetched["bytes"])), int(str(fetched["reused"]))
    assert length - reused <= 0.05 * length
    started = last(client, "kernel2").facts["boot_id"]
    assert started != before
    shell = client.shell()
    assert shell.succeed("cat /proc/sys/kernel/random/boot_id") == started
    rootfs = second.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
    line = shell.succeed("cat /proc/cmdline").split()
    assert {"second", f"phase.rootfs=sha256:{rootfs}", "phase.job=hello"} <= {*line}
    loop.report("update of a running system", client)


@pytest.mark.lab(seconds=280)
def test_a_release_that_panics_is_left_for_the_one_before(loop: Loop, disk: Disk) -> None:
    """The machine comes back by itself; the one before has said that it is well, and is on the disk."""
    good = next_release(loop, loop.release, fall_back=True)
    with loop.provided(good, name="one"):
        client = loop.boot_vm(disks=(disk,), reboots=True)
        loop.reaches_job(client)
        client.console.wait_line(r"phase: release 2\.0\.0 is well", timeout=180)
    panics = next_release(loop, good, "rdinit=/nothing", "3.0.0", fall_back=True)
    with loop.provided(panics, name="two"):
        client.shell().run("reboot")
        for _ in range(2):
            assert "panic" in client.console.wait_death(timeout=200)
        said = r"phase: release 3\.0\.0 was started 2 times .* the one before it is started, 2\.0\.0"
        client.console.wait_line(said, timeout=300, deadly=False)
        again(client, "job", 2)
    rootfs = good.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
    # By its marks: the lab gives no shell on a machine of which a kernel has died.
    assert last(client, "rootfs").facts["sha256"] == rootfs
    loop.report("fallback after a panic", client)


@pytest.mark.lab(seconds=300)
def test_a_release_that_hangs_is_left_for_the_one_before(loop: Loop, disk: Disk) -> None:
    """Its watchdog restarts the machine, which nobody else does."""
    good = next_release(loop, loop.release, fall_back=True)
    with loop.provided(good, name="one"):
        client = loop.boot_vm("phase.watchdog=40", disks=(disk,), reboots=True)
        loop.reaches_job(client)
        client.console.wait_line(r"phase: release 2\.0\.0 is well", timeout=180)
        assert "phase.watched=40" in client.shell().succeed("cat /proc/cmdline").split()
    hangs = next_release(loop, good, "third", "3.0.0", fall_back=True, hangs=True)
    with loop.provided(hangs, name="two"):
        # Switched off and on: the lab takes more than two restarts for a loop.
        client.stop()
        client.start()
        said = r"phase: release 3\.0\.0 was started 2 times .* the one before it is started, 2\.0\.0"
        client.console.wait_line(said, timeout=400, deadly=False)
        again(client, "job", 1)
    rootfs = good.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
    assert last(client, "rootfs").facts["sha256"] == rootfs
    loop.report("fallback after a hang", client)


@pytest.mark.lab(memory=MEMORY, seconds=600)
def test_power_cuts_in_an_update(loop: Loop, disk: Disk, pytestconfig: pytest.Config) -> None:
    """It comes back without anybody, as the release before or the next; the moments' seed is printed."""
    seed = pytestconfig.getoption("--power-seed") or secrets.randbelow(1 << 32)
    chance = random.Random(seed)  # noqa: S311  # for spread
    runs = next_release(loop, loop.release, fall_back=True)
    with loop.provided(runs, name="first"):
        client = loop.boot_vm(memory=MEMORY, disks=(disk,), offline=True)
        loop.reaches_job(client)
        _is_well(client)
    before, came = _rootfs(loop, runs), []
    for number in range(pytestconfig.getoption("--power-cuts")):
        offered = next_release(loop, runs, f"cut{number}", f"{3 + number}.0.0", fall_back=True)
        after = chance.uniform(0, 40)
        print(f"power cut {number} of seed {seed}: after {after:.1f} s", flush=True)
        with loop.provided(offered, name=f"cut{number}"):
            client.shell().succeed("python3 -s -m phase update --now >/run/update 2>&1 &")
            time.sleep(after)
            client.stop()
        client.start()
        client.wait_mark("job", timeout=240)
        assert last(client, "discover").facts["source"] == "cache"
        found = last(client, "rootfs").facts["sha256"]
        assert found in (before, _rootfs(loop, offered)), (seed, number)
        came.append(found != before)
        # Otherwise the next cut would be the second of its starts, and it would be left for the one before.
        _is_well(client)
        before, runs = str(found), offered
    print(f"the next release came {sum(came)} times of {len(came)}", flush=True)
    loop.report("power cuts in updates", client)


def _is_well(client: VM) -> None:
    client.console.wait_line(r"phase: release [0-9.]+ is well", timeout=180)


def _rootfs(loop: Loop, release: Release) -> str:
    return release.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
