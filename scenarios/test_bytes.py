"""The byte's way: all that a second kernel is given was verified in this boot, or is our own."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net.hostport import HostPort, refusal
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.boot import cpio
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop, mark

#: What a kernel would unpack, or take a table of ACPI from, wherever it came upon it.
STALE = b"".join(
    cpio.header(name, 0o100644, 20, inode=number) + b"stale " * 3 + b"! "
    for number, name in enumerate(("stale", "kernel/firmware/acpi/stale.aml"), 1)
)
#: Where a kernel says that its initrd was, and how long.
PLACES = {
    # Fields of the boot parameters: Linux Documentation/arch/x86/boot.rst.
    "x86_64": "hexdump -s 536 -n 8 -e '2/4 \"%u \"' /sys/kernel/boot_params/data",
    "arm64": "for end in start end; do hexdump -v -e '1/1 \"%02x\"' "
    "/sys/firmware/devicetree/base/chosen/linux,initrd-$end; echo; done",
}


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    if why := refusal():
        pytest.skip(why)
    made = Repository.create(tmp_path / "repository", keys=release_keys.load(KEYS / "lab"))
    artifacts = release.repository.manifest(CHANNEL, arch).artifacts
    files = {name: release.blob(artifact.sha256) for name, artifact in artifacts.items()}
    # The kernel leaves its initrd where it found it.
    made.add(CHANNEL, arch, files, cmdline=f"{SIGNED_CMDLINE} retain_initrd", release="1.0.0")
    made.publish()
    return Loop(lab, record, Release(tmp_path / "repository", made), arch, tmp_path)


def _prepared(loop: Loop, directory: Path) -> Disk:
    """A cache that somebody has filled: everything of this release is there by name, and nothing is true."""
    blobs, metadata = directory / "blobs/sha256", directory / f"metadata-{loop.release.publisher}"
    for place in (blobs, metadata):
        place.mkdir(parents=True)
    for artifact in loop.release.repository.manifest(CHANNEL, loop.arch).artifacts.values():
        length = artifact.length + (1 << 20)
        (blobs / artifact.content).write_bytes((STALE * (length // len(STALE) + 1))[:length])
    for name in loop.release.repository.metadata():
        (metadata / name).write_bytes(STALE)
    image = loop.work / "cache.ext4"
    image.touch()
    label = ["-L", "phase-cache", "-d", str(directory)]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *label, str(image), "256M"], check=True)
    return Disk(image, access="read-write")


@contextlib.contextmanager
def _stalling(loop: Loop, port: HostPort) -> Iterator[str]:
    """A provider of true metadata, but for blanks, which nobody signs, and without the rootfs; its URL."""
    tree = loop.work / "stalling"
    shutil.copytree(loop.release.directory / "metadata", tree / "metadata")
    with (tree / "metadata/timestamp.json").open("ab") as timestamp:
        timestamp.write(b" " * 300)
    (tree / "blobs/sha256").mkdir(parents=True)
    artifacts = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts
    for name in ("kernel", "initramfs"):
        digest = artifacts[name].sha256
        shutil.copyfile(loop.release.blob(digest), tree / "blobs/sha256" / digest)
    address = str(port.address.ip)
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "http.server", str(PORT)]
    process = subprocess.Popen(
        port.command(*command, "--bind", address, "--directory", str(tree)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}:{PORT}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _initrd(client: VM, arch: str, path: Path) -> tuple[bytes, int]:
    """The bytes from where the running kernel's initrd was to the end of its last page, and its length."""
    words = client.shell().succeed(PLACES[arch]).split()
    if arch == "x86_64":
        start, length = (int(word) for word in words)
    else:
        start, end = (int(word, 16) for word in words)
        length = end - start
    client.qmp("stop")
    client.qmp("pmemsave", val=start, size=-(-length // 4096) * 4096, filename=str(path))
    client.qmp("cont")
    return path.read_bytes(), length


@pytest.mark.lab(vcpus=0.7, seconds=110)
def test_nothing_stale_reaches_the_second_kernel(loop: Loop, tmp_path: Path) -> None:
    """The disk was prepared, and a first attempt broke off when all of it had been copied."""
    disk = _prepared(loop, tmp_path / "cache")
    loop.serve(staged=True)
    with _stalling(loop, loop.lab.host_port("stalls", loop.lan)) as url:
        client = loop.boot_vm(f"phase.provider={url}", disks=(disk,))
        client.wait_mark("fetch", outcome="retry", timeout=120)
        client.wait_mark("job", timeout=240)
    assert mark(client, "trust").facts["provider"] == url
    found, length = _initrd(client, loop.arch, tmp_path / "memory")
    _, expected, _ = loop.release.system(loop.arch, tmp_path, "", serves=(loop.arch,))
    assert length == expected.stat().st_size
    assert found[:length] == expected.read_bytes()
    assert not any(found[length:]), "the rest of the last page"
    assert STALE not in found
    assert client.shell().fail("dmesg | grep -i 'acpi.*initrd'") == ""
    assert mark(client, "kernel").facts["boot_id"] != mark(client, "kernel2").facts["boot_id"]
    loop.receipt_holds(client)
    loop.report("prepared cache and a stalling provider", client)
