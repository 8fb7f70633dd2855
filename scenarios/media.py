"""Media of the session's release, and machines that boot from them."""

from pathlib import Path

from boot import images
from boot.media import write
from boot.media.build import Plan
from lab.qemu.command import Disk, Firmware
from lab.qemu.vm import VM
from scenarios import lab_guest
from scenarios.images import ARCHES, CHANNEL, Release
from scenarios.loop import Loop

#: MiB. Firmware has a share of it.
MEMORY = 768


def plan(release: Release, arches: tuple[str, ...] = ARCHES) -> Plan:
    """A medium that trusts a release's root.

    Args:
        release: of the session.
        arches: for which machines.
    """
    root = (release.directory / "metadata" / "1.root.json").read_bytes()
    return Plan(arches, images.config(root), CHANNEL, words="panic=-1 phase.job=hello")


def written(medium: Path, stick: Path) -> Path:
    """A stick that is larger than the medium, as `python -m boot write` leaves it.

    Args:
        medium: what is written to it.
        stick: the file that stands for it.
    """
    length = medium.stat().st_size
    size = length + (64 << 20)
    with medium.open("rb") as source, stick.open("w+b", buffering=0) as target:
        target.truncate(size)
        write.transfer(source, target, length, size)
    return stick


def boot(
    loop: Loop, disk: Disk, name: str = "client", *, firmware: Firmware | None = None, tpm: bool = False
) -> VM:
    """Switch on a machine that has nothing but firmware, a card and this disk.

    Args:
        loop: whose segment it is on.
        disk: the medium.
        name: of the machine.
        firmware: without Secure Boot when left out.
        tpm: whether it has a TPM.
    """
    client = loop.lab.vm(
        name,
        arch=loop.arch,
        memory=MEMORY,
        disks=(disk,),
        firmware=firmware or lab_guest.FIRMWARE[loop.arch],
        segments=(loop.lan,),
        tpm=tpm,
    )
    client.start()
    return client


def says(client: VM, words: str) -> None:
    """Wait for what a boot loader draws, in no line that ends.

    Args:
        client: the machine.
        words: of it.
    """
    client.console.wait(lambda: words.encode() in client.console.raw or None, words, timeout=60)
