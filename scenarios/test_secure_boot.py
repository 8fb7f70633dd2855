"""Secure Boot (docs/use/secure-boot.md): firmware starts what its owner has signed, and nothing else."""

from pathlib import Path

import pytest

from boot.media import build
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.topology import Lab
from scenarios import media, secure_boot
from scenarios.images import Release
from scenarios.loop import Loop

#: A word of the command line, which is inside of the signed program.
_WORD = b" phase.job=hello"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=60)
@pytest.mark.parametrize("image", ["signed", "unsigned", "tampered"])
def test_firmware_starts_what_its_owner_signed(loop: Loop, image: str, tmp_path: Path) -> None:
    """A stick with a seed as one program; the tampered one differs in a byte of its command line."""
    firmware, signer = secure_boot.firmware(loop.arch, tmp_path)
    plan = media.plan(loop.release, (loop.arch,))
    # The kernel's own words, too: `quiet` is among the others.
    plan = plan._replace(loader="uki", words=f"{plan.words} loglevel=6")
    stick = tmp_path / "stick.img"
    build.build("usb", plan if image == "unsigned" else plan._replace(signer=signer), stick)
    if image == "tampered":
        content = stick.read_bytes()
        assert content.count(_WORD) == 1
        stick.write_bytes(content.replace(_WORD, _WORD[:-1] + b"O"))
    client = media.boot(loop, Disk(stick, bus="usb"), firmware=firmware)
    if image == "signed":
        client.wait_mark("init", timeout=180)
        # It would start without Secure Boot, too: the kernel says that firmware enforces it.
        assert "locked down from EFI Secure Boot" in client.console.text
        return
    media.says(client, "Access Denied")
    media.says(client, "No bootable option or device was found")
    assert b"Linux version" not in client.console.raw
    assert not client.marks
