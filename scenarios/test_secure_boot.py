"""Secure Boot (docs/use/secure-boot.md): firmware starts what its owner has signed, and nothing else."""

import shutil
from pathlib import Path

import pytest

from boot import signing
from boot.media import build
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import images, media, secure_boot
from scenarios.images import Release
from scenarios.loop import Loop, last

#: A word of the command line, which is inside of the signed program.
_WORD = b" phase.job=hello"
#: What a machine's TPM holds, by number.
_REGISTERS = "/sys/class/tpm/tpm0/pcr-sha256"
#: Why a locked-down seed does not hand over to a release whose kernel is signed so; None: it does.
_REFUSED = {
    "owner's": None,
    "stranger's": "the release's kernel is signed by no key that this machine trusts",
    "unsigned": "the release's kernel is not signed",
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


@pytest.mark.images("x86_64")
@pytest.mark.lab(seconds=120)
@pytest.mark.parametrize("kernel", _REFUSED)
def test_a_locked_down_seed_starts_a_kernel_that_its_owner_signed(
    lab: Lab, record: Record, kernel: str, tmp_path: Path
) -> None:
    """From the stick to the hello job; a release whose publisher did not sign its kernel goes no further."""
    firmware, signer = secure_boot.firmware("x86_64", tmp_path)
    program = tmp_path / "kernel"
    shutil.copyfile(images.built(("x86_64",))[0].kernel, program)
    signing.sign(program, signer if kernel == "owner's" else secure_boot.signer(tmp_path, "stranger"))
    if kernel == "unsigned":
        signing.strip(program)
    release = secure_boot.release("x86_64", program, tmp_path / "release")
    loop = Loop(lab, record, release, "x86_64", tmp_path)
    plan = media.plan(release, ("x86_64",))._replace(loader="uki", signer=signer)
    build.build("usb", plan, tmp_path / "stick.img")
    with loop.provided():
        stick = Disk(tmp_path / "stick.img", bus="usb")
        client = media.boot(loop, stick, firmware=firmware, tpm=kernel == "owner's")
        if (reason := _REFUSED[kernel]) is not None:
            _is_refused(loop, client, reason)
            return
        loop.reaches_job(client)
        loop.report("Secure Boot", client)
        line = plan.options(loop.arch, plan.mode)
        loop.handed_over(client, line)
        loop.receipt_holds(client)
        mounted = "mount -t securityfs security /sys/kernel/security"
        # Also where it has come by kexec, and has not asked the firmware itself.
        assert "[integrity]" in client.shell().succeed(f"{mounted}; cat /sys/kernel/security/lockdown")
        # Firmware has measured the stick and its keys, and systemd's stub what it started.
        registers = [client.shell().succeed(f"cat {_REGISTERS}/{n}").strip().lower() for n in (4, 7, 11, 14)]
        assert "0" * 64 not in registers
        assert registers[-1] == loop.predicted(line)


@pytest.mark.images("arm64")
@pytest.mark.lab(seconds=120)
def test_a_locked_down_kernel_for_arm64_starts_no_other(lab: Lab, record: Record, tmp_path: Path) -> None:
    """Signed or not: Debian builds it without `kexec_file_load`. The machine says so, and what helps."""
    firmware, signer = secure_boot.firmware("arm64", tmp_path)
    program = tmp_path / "kernel"
    shutil.copyfile(images.built(("arm64",))[0].kernel, program)
    signing.sign(program, signer)
    release = secure_boot.release("arm64", program, tmp_path / "release")
    loop = Loop(lab, record, release, "arm64", tmp_path)
    plan = media.plan(release, ("arm64",))._replace(loader="uki", signer=signer)
    build.build("usb", plan, tmp_path / "stick.img")
    with loop.provided():
        client = media.boot(loop, Disk(tmp_path / "stick.img", bus="usb"), firmware=firmware)
        _is_refused(loop, client, "it was built without kexec_file_load")


def _is_refused(loop: Loop, client: VM, reason: str) -> None:
    """The seed has fetched a release, does not start it, says why, and does not ask again at once."""
    loop.gives_up(client)
    assert reason in str(last(client, "load").facts["reason"])
    client.console.wait_line("this machine restarts and tries again in 600 s", timeout=10)
    assert not {"handoff", "kernel2"} & {found.step for found in client.marks}
