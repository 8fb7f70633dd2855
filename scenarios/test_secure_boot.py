"""Secure Boot (docs/use/secure-boot.md): firmware starts what its owner has signed, and nothing else."""

import shutil
from pathlib import Path

import pytest

from boot import signing
from boot.media import build
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.topology import Lab
from scenarios import images, media, secure_boot
from scenarios.images import Release
from scenarios.loop import Loop, last

#: A word of the command line, which is inside of the signed program.
_WORD = b" phase.job=hello"
#: Why a seed hands over to a release whose kernel is signed so, or not, on each architecture; None: it does.
_WITHOUT = "it was built without kexec_file_load"
_REFUSED = {
    "x86_64": {
        "owner's": None,
        "stranger's": "the release's kernel is signed by no key that the firmware or this kernel trusts",
        "unsigned": "the release's kernel is not signed",
    },
    "arm64": {"owner's": _WITHOUT, "stranger's": _WITHOUT, "unsigned": _WITHOUT},
}


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


@pytest.mark.lab(seconds=120)
@pytest.mark.parametrize("kernel", ["owner's", "stranger's", "unsigned"])
def test_a_locked_down_seed_starts_a_kernel_that_its_owner_signed(
    lab: Lab, record: Record, arch: str, kernel: str, tmp_path: Path
) -> None:
    """From the stick to the hello job; a release whose publisher did not sign its kernel goes no further."""
    firmware, signer = secure_boot.firmware(arch, tmp_path)
    program = tmp_path / "kernel"
    shutil.copyfile(images.built((arch,))[0].kernel, program)
    signing.sign(program, signer if kernel == "owner's" else secure_boot.signer(tmp_path, "stranger"))
    if kernel == "unsigned":
        signing.strip(program)
    release = secure_boot.release(arch, program, tmp_path / "release")
    loop = Loop(lab, record, release, arch, tmp_path)
    plan = media.plan(release, (arch,))._replace(loader="uki", signer=signer)
    build.build("usb", plan, tmp_path / "stick.img")
    with loop.provided():
        client = media.boot(loop, Disk(tmp_path / "stick.img", bus="usb"), firmware=firmware)
        if (reason := _REFUSED[arch][kernel]) is None:
            loop.reaches_job(client)
            loop.report("Secure Boot", client)
            loop.handed_over(client, plan.options(arch, plan.mode))
            loop.receipt_holds(client)
            assert "[integrity]" in client.shell().succeed(
                "mount -t securityfs s /sys/kernel/security; cat /sys/kernel/security/lockdown"
            )
            return
        loop.gives_up(client)
        assert reason in str(last(client, "load").facts["reason"])
        client.console.wait_line("this machine restarts and tries again in 600 s", timeout=10)
        assert not {"handoff", "kernel2"} & {found.step for found in client.marks}
