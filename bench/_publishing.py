"""A machine that publishes onto a disk of its own, and whose power goes while it does."""

import json
import random
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from boot import tree
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.shell import Shell
from lab.topology import Lab
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, Release

_DISK = "128M"
_KERNEL = 2 << 20
#: Runs `phase release ...` with everything imported before it says so and waits: what is cut is the work.
_DRIVER = '''"""Publish when told to, and say when it is done."""

import os
import sys
import time

import phase.release.local
import phase.release.repository
from phase.cli.release import command


def say(what):
    with open("/dev/kmsg", "w") as console:
        console.write(f"<3>publishing {what}\\n")


open("/tmp/ready", "w").close()
while not os.path.exists("/tmp/go"):
    time.sleep(0.01)
time.sleep(0.3)  # whoever said so is to have its answer first
say(f"{sys.argv[1]} begins")
begun = time.monotonic()
command(sys.argv[2:], standalone_mode=False)
say(f"{sys.argv[1]} done in {time.monotonic() - begun:.2f} s")
'''
KINDS = ("publish", "refresh")


class Publisher:
    """The machine, its disk, and what must be on it.

    Args:
        lab: where it is switched on.
        release: what it boots.
        arch: its architecture.
        work: a directory for its disks.
    """

    def __init__(self, lab: Lab, release: Release, arch: str, work: Path) -> None:
        self._arch = arch
        kernel, initrd, line = release.system(arch, work, f"phase.channel={CHANNEL}", serves=(arch,))
        disks = (Disk(_tools(arch, work), access="read-only"), Disk(_disk(arch, work), access="read-write"))
        self._vm: VM = lab.vm(
            "publisher", arch=arch, memory=768, kernel=kernel, initrd=initrd, append=line, disks=disks
        )
        #: Seconds that each kind takes when nothing disturbs it, at best.
        self.usual: dict[str, float] = {}
        self._number = 0
        self._files: set[str] = set()
        #: Version of the release that must not be lost.
        self._version = 1
        #: Version of the timestamp before what was started last.
        self._stamp = 0

    def begin(self) -> Shell:
        """Boot, and measure how long each kind takes when nothing disturbs it."""
        shell = self._boot()
        for kind in KINDS:
            self._start(shell, kind)
            self._done(kind)
            self._version += kind == "publish"
        self._expect(shell, self._version)
        return shell

    def cut(self, shell: Shell, kind: str, after: float) -> tuple[Shell, str]:
        """Begin, take the power away, look at what is there, and finish.

        Args:
            shell: of the running machine.
            kind: `publish` or `refresh`.
            after: seconds from the beginning of the work to the cut.

        Returns:
            A shell of the machine that was booted again, and where the cut came.

        Raises:
            LabError: what is there does not verify, or the command does not finish.
            Lost: what was there is not, or what must be new is old.
        """
        self._start(shell, kind)
        self._vm.console.wait_line(rf"publishing {self._number} begins", timeout=120)
        time.sleep(after)
        finished = f"publishing {self._number} done" in self._vm.console.text
        self._vm.stop()
        shell = self._boot()
        new = sorted(path.rpartition("/")[2][:24] for path in self._paths(shell) - self._files)
        version = self._verified(shell)
        allowed = {self._version, self._version + 1} if kind == "publish" else {self._version}
        if finished:
            # What the command has reported done must still be there.
            allowed = {max(allowed)}
        if version not in allowed:
            raise Lost(f"release version {version} is there, expected {sorted(allowed)}")
        timestamp = self._timestamp(shell)
        if timestamp < self._stamp + finished:
            raise Lost(f"timestamp {timestamp} is there, expected {self._stamp + finished} or newer")
        where = "after its end" if finished else f"with {', '.join(new) or 'no new file'} there"
        self._start(shell, kind)
        self._done(kind)
        self._version = version + (kind == "publish")
        self._expect(shell, self._version)
        if self._timestamp(shell) <= timestamp:
            raise Lost(f"finished, the timestamp is {timestamp} still")
        return shell, where

    def _boot(self) -> Shell:
        self._vm.start()
        self._vm.wait_mark("system", timeout=120)
        shell = self._vm.shell()
        shell.succeed("mkdir -p /mnt /srv && mount -t squashfs -o ro /dev/vda /mnt")
        shell.succeed("while read -r module; do insmod /mnt$module; done </mnt/etc/modules")
        shell.succeed("mount -t ext4 /dev/vdb /srv")
        return shell

    def _start(self, shell: Shell, kind: str) -> None:
        self._files, self._stamp = self._paths(shell), self._timestamp(shell)
        words = ["refresh", "/srv/repo", "--keys", "/mnt/keys"]
        self._number += 1
        if kind == "publish":
            shell.succeed(f"head -c {_KERNEL} /dev/urandom >/run/kernel")
            words = ["add", "/srv/repo", CHANNEL, self._arch, "--kernel", "/run/kernel"]
            words += ["--release", str(self._number), "--keys", "/mnt/keys", "--force"]
        shell.succeed("rm -f /tmp/ready /tmp/go; dmesg -c >/dev/null")
        shell.succeed(f"python3 /mnt/publish.py {self._number} {shlex.join(words)} >/tmp/log 2>&1 &")
        shell.wait_until_succeeds("test -e /tmp/ready", timeout=120, pause=0.1)
        shell.succeed("touch /tmp/go")

    def _done(self, kind: str) -> None:
        """Wait for the end of what was started, and remember how long it took."""
        line = rf"publishing {self._number} done in ([0-9.]+) s"
        took = float(self._vm.console.wait_line(line, timeout=120).group(1))
        self.usual[kind] = min(took, self.usual.get(kind, took))

    def _paths(self, shell: Shell) -> set[str]:
        return set(shell.succeed("find /srv/repo -type f").split())

    def _verified(self, shell: Shell) -> int:
        said = shell.succeed(
            "python3 -m phase release verify /srv/repo --root /mnt/root.json --json", timeout=120
        )
        version: int = json.loads(said)["verified"][0]["version"]
        return version

    def _timestamp(self, shell: Shell) -> int:
        version: int = json.loads(shell.succeed("cat /srv/repo/metadata/timestamp.json"))["signed"][
            "version"
        ]
        return version

    def _expect(self, shell: Shell, version: int) -> None:
        found = self._verified(shell)
        if found != version:
            raise Lost(f"finished, release version {found} is there, expected {version}")


class Lost(Exception):
    """Something that was there is not, or what should be new is old."""


def cuts(
    lab: Lab,
    release: Release,
    arch: str,
    work: Path,
    count: int,
    kinds: tuple[str, ...],
    chance: random.Random,
) -> bool:
    """Cut the power of each kind so often; returns whether all was well."""
    machine = Publisher(lab, release, arch, work)
    shell = machine.begin()
    took = ", ".join(f"{kind} takes {seconds:.1f} s" for kind, seconds in machine.usual.items())
    print(f"{arch}: undisturbed, {took}", flush=True)
    for number in range(1, count + 1):
        for kind in kinds:
            after = chance.uniform(0, 1.1 * machine.usual[kind])
            try:
                shell, where = machine.cut(shell, kind, after)
            except Exception as error:
                print(f"{arch} {kind} cut {number} after {after:.2f} s: {error}", flush=True)
                return False
            said = "consistent; finished then"
            print(f"{arch} {kind} cut {number} after {after:.2f} s, {where}: {said}", flush=True)
    print(f"{arch}: {count} cuts of each, {' and '.join(kinds)}: always consistent, always finished")
    return True


def _tools(arch: str, work: Path) -> Path:
    """A disk with the keys, the trusted root, the driver, and the modules that ext4 takes."""
    stage, image = work / "tools", work / "tools.squashfs"
    tree.kernel_modules(tree.unpacked(arch) / "root", tree.packages()["modules"]["cache"], stage)
    ReleaseKeys.from_seed("power").save(stage / "keys")
    (stage / "publish.py").write_text(_DRIVER)
    (work / "kernel").write_bytes(b"the first kernel")
    repository = Repository.create(work / "disk" / "repo", keys=ReleaseKeys.from_seed("power"))
    repository.add(CHANNEL, arch, {"kernel": work / "kernel"}, release="0")
    repository.publish()
    shutil.copyfile(work / "disk/repo/metadata/1.root.json", stage / "root.json")
    subprocess.run(["mksquashfs", stage, image, "-quiet", "-no-progress", "-all-root"], check=True)
    return image


def _disk(arch: str, work: Path) -> Path:
    """A disk with the repository that `_tools` has made."""
    image = work / "publisher.ext4"
    image.touch()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", work / "disk", image, _DISK], check=True)
    return image
