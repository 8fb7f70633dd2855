"""`python -m boot write` on devices of a kernel's own, in a machine whose disks may be erased."""

import shutil
from pathlib import Path

import pytest

from boot import tree
from boot.media import build
from boot.run import run
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.shell import Shell
from lab.topology import Lab
from scenarios import debian_guest, media
from scenarios.images import Release
from scenarios.loop import Loop

ARCH = "x86_64"
#: What `write` is made of: nothing but the standard library.
PARTS = ("__init__", "errors", "run", "media/__init__", "media/devices", "media/write")
PROGRAM = """\
import sys
from pathlib import Path
from boot.errors import BuildError
from boot.media import write
try:
    sys.exit(not write.write(Path("/media/stick.img"), Path(sys.argv[1])))
except BuildError as error:
    sys.exit(f"boot: {error}")
"""


@pytest.fixture
def carried(release: Release, tmp_path: Path) -> Path:
    """What is carried to the machine: a medium, and what writes it."""
    directory = tmp_path / "carried"
    for name in PARTS:
        place = directory / "boot" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree.HERE / f"{name}.py", place)
    (directory / "write.py").write_text(PROGRAM)
    build.build("usb", media.plan(release, (ARCH,)), directory / "stick.img")
    return directory


@pytest.mark.lab(seconds=150)
@pytest.mark.images(ARCH)
def test_a_device_in_use_is_refused_and_a_free_one_boots(
    lab: Lab, record: Record, release: Release, carried: Path, tmp_path: Path
) -> None:
    """Mounted in sight, and where lsblk does not look; then free, written, and firmware starts it."""
    loop = Loop(lab, record, release, ARCH, tmp_path)
    stick, files = tmp_path / "stick", tmp_path / "photos"
    files.mkdir()
    run(["mksquashfs", files, stick, "-quiet", "-no-progress"])
    with stick.open("r+b") as handle:
        handle.truncate((carried / "stick.img").stat().st_size + (64 << 20))
    disk = Disk(stick, access="read-write")
    machine = debian_guest.machine(lab, "debian", ARCH, loop.lan, carried, tmp_path, disks=(disk,))
    machine.wait_mark("system", timeout=120)
    shell = machine.shell()

    shell.succeed("mkdir -p /mnt; mount /dev/vdc /mnt")
    assert "vdc on /dev/vdc is in use, at /mnt" in _refused(shell)
    shell.succeed("umount /mnt")
    hidden = "unshare --mount sh -c 'mount /dev/vdc /mnt; echo $$ >/run/hidden; exec sleep 600'"
    shell.succeed(f"setsid {hidden} >/dev/null 2>&1 </dev/null &")
    shell.wait_until_succeeds("test -s /run/hidden", timeout=30)
    assert "/dev/vdc is in use. It may be mounted in a container" in _refused(shell)
    shell.succeed("kill $(cat /run/hidden)")
    shell.wait_until_succeeds("! test -d /proc/$(cat /run/hidden)", timeout=30)
    assert "/dev/vda is read-only" in _refused(shell, "/dev/vda")

    said = shell.succeed("cd /media && echo yes | python3 write.py /dev/vdc 2>&1; sync", timeout=180)
    assert "squashfs" in said
    assert "compared: " in said
    machine.stop()
    client = media.boot(loop, Disk(stick, bus="usb"))
    assert client.wait_mark("init", timeout=120).facts["mode"] == "internet"


def _refused(shell: Shell, device: str = "/dev/vdc") -> str:
    """What the command says when it refuses a device."""
    done = shell.run(f"cd /media && echo yes | python3 write.py {device} 2>&1", timeout=60)
    assert done.code == 1
    return done.output
