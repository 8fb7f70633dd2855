"""`phase netboot` beside a DHCP server that knows nothing of it."""

import math
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from boot.media import served
from lab.net.hostport import refusal
from lab.plugin import Record
from lab.qemu.command import Firmware
from lab.topology import Lab
from scenarios import lab_guest
from scenarios.images import Release
from scenarios.loop import PORT, mark
from scenarios.seeds import SeedProvider
from scenarios.serving import netbooting, serving


class Segment:
    """A provider of a seed, `phase netboot` beside it, and a DHCP server that names no boot file."""

    def __init__(self, lab: Lab, record: Record, release: Release, arch: str, work: Path) -> None:
        self.provider = SeedProvider(lab, record, release, arch, work)
        self.loop = self.provider.loop

    def boots(
        self,
        name: str,
        *,
        firmware: Firmware | None,
        option_rom: bool = False,
        options: tuple[str, ...] = (),
    ) -> str:
        """A machine with nothing of its own goes the whole way; what `phase netboot` said."""
        port, log = self.provider.port, self.loop.work / "netboot.log"
        with self.serving() as url, netbooting(port, url, log, *options):
            self.goes_the_whole_way(name, firmware=firmware, option_rom=option_rom)
        return log.read_text()

    def goes_the_whole_way(self, name: str, *, firmware: Firmware | None, option_rom: bool) -> None:
        """From firmware to the hello job of the release that the provider serves."""
        loop = self.loop
        client = loop.lab.vm(
            "client",
            arch=loop.arch,
            memory=768,
            firmware=firmware,
            option_rom=option_rom,
            segments=(loop.lan,),
        )
        client.start()
        client.wait_mark("kernel", timeout=480, quiet=math.inf)
        loop.reaches_job(client)
        assert mark(client, "kernel").facts["boot_id"] != mark(client, "kernel2").facts["boot_id"]
        loop.receipt_holds(client)
        loop.report(name, client)

    def serving(self) -> AbstractContextManager[str]:
        """The provider, while it serves."""
        return serving(self.loop.release.directory, "--port", str(PORT), port=self.provider.port)


@pytest.fixture
def segment(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Segment:
    if why := refusal():
        pytest.skip(why)
    return Segment(lab, record, release, arch, tmp_path)


@pytest.mark.lab(vcpus=0.8, seconds=110)
def test_uefi_boots_by_pxe(segment: Segment) -> None:
    """The firmware's own PXE client fetches the seed by TFTP."""
    said = segment.boots("PXE", firmware=lab_guest.FIRMWARE[segment.loop.arch])
    assert f"asks by PXE: {segment.loop.arch}/boot.efi" in said
    assert f"fetches {segment.loop.arch}/boot.efi, in " in said


@pytest.mark.lab(vcpus=0.8, seconds=290)
def test_uefi_boots_over_http(segment: Segment) -> None:
    """Told nothing by PXE, it goes on to its own HTTP client."""
    said = segment.boots(
        "HTTP boot beside a DHCP server",
        firmware=lab_guest.FIRMWARE[segment.loop.arch],
        options=("--no-tftp",),
    )
    assert f"asks by UEFI HTTP boot: {segment.provider.url}/boot.efi" in said


@pytest.mark.images("x86_64")
@pytest.mark.lab(seconds=90)
def test_ipxe_of_a_card_boots(lab: Lab, record: Record, release: Release, tmp_path: Path) -> None:
    """The iPXE in the network card's ROM is told where its script is; QEMU has one for x86_64 alone."""
    if why := refusal():
        pytest.skip(why)
    segment = Segment(lab, record, release, "x86_64", tmp_path)
    said = segment.boots("iPXE beside a DHCP server", firmware=None, option_rom=True)
    assert f"asks by iPXE: {segment.provider.url}/boot.ipxe" in said


@pytest.mark.images("x86_64")
@pytest.mark.lab(seconds=90)
def test_a_tree_on_another_server_boots(lab: Lab, record: Record, release: Release, tmp_path: Path) -> None:
    """From the tree's script iPXE goes, by names alone, to the seed of its processor."""
    if why := refusal():
        pytest.skip(why)
    segment = Segment(lab, record, release, "x86_64", tmp_path)
    port, tree = segment.provider.port, tmp_path / "tree"
    served.write(tree, {"x86_64": segment.provider.seed})
    segment.loop.lan.dhcp.options[67] = f"http://{port.address.ip}:8000/boot.ipxe".encode()
    words = (sys.executable, "-m", "http.server", "8000", "--directory", tree)
    with segment.serving(), port.running(*words):
        segment.goes_the_whole_way("iPXE from a tree of files", firmware=None, option_rom=True)
