"""Programs that know nothing of Phase, on what `phase serve` serves."""

import math
import os
import re
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from lab.net.hostport import refusal
from lab.plugin import Record
from lab.qemu.command import Firmware
from lab.topology import Lab
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from scenarios import lab_guest
from scenarios.images import Release
from scenarios.loop import PORT, mark
from scenarios.seeds import SeedProvider
from scenarios.serving import serving

ROOTFS = os.urandom(1 << 16) * 256
ETAG = f'"sha256-{sha256(ROOTFS).hexdigest()}"'
_AVAHI = """[server]
host-name=desk
use-ipv6=no
allow-interfaces=eth0
[publish]
publish-workstation=no
"""
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>
<policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("foreign")
    (directory / "kernel").write_bytes(b"kernel")
    (directory / "rootfs").write_bytes(ROOTFS)
    made = Repository.create(directory / "repository", keys=ReleaseKeys.from_seed("foreign"))
    files = {"kernel": directory / "kernel", "rootfs": directory / "rootfs"}
    made.add("stable", "x86_64", files, release="1.0.0")
    made.publish()
    return directory / "repository"


@pytest.fixture(scope="module")
def url(repository: Path) -> Iterator[str]:
    with serving(repository, "--port", "0", "--no-mdns") as base:
        yield f"{base}/stable/x86_64/rootfs"


def said(*command: str | Path) -> str:
    """What a program prints; it has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curl(*words: str) -> str:
    """The head of an answer, as curl prints it."""
    return said("curl", "-sS", "--max-time", "60", "-D", "-", "-o", os.devnull, *words)


def test_curl_reads_heads_and_parts(url: str, tmp_path: Path) -> None:
    head = curl("--head", url)
    assert head.startswith("HTTP/1.1 200 ")
    assert f"ETag: {ETAG}" in head
    assert f"Content-Length: {len(ROOTFS)}" in head
    out = tmp_path / "part"
    for asked, first, last in (
        ("0-0", 0, 0),
        ("1000-70000", 1000, 70_000),
        (f"{len(ROOTFS) - 5}-", len(ROOTFS) - 5, len(ROOTFS) - 1),
        ("-9", len(ROOTFS) - 9, len(ROOTFS) - 1),
    ):
        head = said("curl", "-sS", "-D", "-", "-r", asked, "-o", out, url)
        assert head.startswith("HTTP/1.1 206 ")
        assert f"Content-Range: bytes {first}-{last}/{len(ROOTFS)}" in head
        assert out.read_bytes() == ROOTFS[first : last + 1]
    # Two parts may be answered with the whole.
    assert said("curl", "-sS", "-D", "-", "-r", "0-1,5-6", "-o", out, url).startswith("HTTP/1.1 200 ")
    assert out.read_bytes() == ROOTFS
    assert curl("-r", f"{len(ROOTFS)}-", url).startswith("HTTP/1.1 416 ")


def test_curl_resumes(url: str, tmp_path: Path) -> None:
    out = tmp_path / "rootfs"
    out.write_bytes(ROOTFS[:1_000_001])
    head = said("curl", "-sS", "--fail", "-C", "-", "-D", "-", "-o", out, url)
    assert "Content-Range: bytes 1000001-" in head
    assert out.read_bytes() == ROOTFS


def test_curl_asks_for_what_changed(url: str, tmp_path: Path) -> None:
    kept, out = tmp_path / "etag", tmp_path / "rootfs"
    assert said("curl", "-sS", "--etag-save", kept, "-o", out, "-w", "%{http_code}", url) == "200"
    assert kept.read_text().strip() == ETAG
    again = (
        "curl",
        "-sS",
        "--etag-compare",
        kept,
        "-o",
        tmp_path / "again",
        "-w",
        "%{http_code} %{size_download}",
    )
    assert said(*again, url) == "304 0"
    kept.write_text('"sha256-another"\n')
    assert said(*again, url) == f"200 {len(ROOTFS)}"
    part = ("-r", "0-9")
    assert curl(*part, "-H", f"If-Range: {ETAG}", url).startswith("HTTP/1.1 206 ")
    assert curl(*part, "-H", 'If-Range: "sha256-another"', url).startswith("HTTP/1.1 200 ")
    assert curl("-H", 'If-Match: "sha256-another"', url).startswith("HTTP/1.1 412 ")


def test_wget_continues(url: str, tmp_path: Path) -> None:
    out = tmp_path / "rootfs"
    out.write_bytes(ROOTFS[:2_000_003])
    said("wget", "-q", "-c", "-O", out, url)
    assert out.read_bytes() == ROOTFS
    # Asked once more for what it has, it is told that there is no more.
    said("wget", "-q", "-c", "-O", out, url)
    assert out.read_bytes() == ROOTFS


def test_aria2_reads_eight_parts_at_once(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving(repository, "--port", "0", "--no-mdns", "--access-log", str(log)) as base:
        options = ("-q", "-x8", "-s8", "-k", "1M", "--file-allocation=none", "--no-conf=true")
        digest = sha256(ROOTFS).hexdigest()
        into = ("-d", tmp_path, "-o", "rootfs", f"--checksum=sha-256={digest}")
        said("aria2c", *options, *into, f"{base}/blobs/sha256/{digest}")
    assert (tmp_path / "rootfs").read_bytes() == ROOTFS
    assert log.read_text().count('"status": 206') > 1, "it was not read in parts"


@pytest.mark.lab(vcpus=0.2)
def test_avahi_browse_sees_it(lab: Lab, repository: Path, tmp_path: Path) -> None:
    """A provider on one card of a segment, Avahi on the next."""
    if why := refusal():
        pytest.skip(why)
    lan = lab.segment("lan")
    provider, desk = lab.host_port("provider", lan), lab.host_port("desk", lan)
    (tmp_path / "avahi.conf").write_text(_AVAHI)
    (tmp_path / "bus.conf").write_text(_BUS)
    # Its own bus and daemon, in a mount namespace: the host's, if it has them, are not disturbed.
    script = (
        "mount -t tmpfs none /run && mkdir /run/dbus /run/avahi-daemon && "
        f"dbus-daemon --config-file={tmp_path}/bus.conf --fork --nosyslog --print-pid=3 3>/run/bus.pid && "
        "trap 'kill $(cat /run/bus.pid)' EXIT && exec 2>&1 && "
        f"{{ avahi-daemon --file {tmp_path}/avahi.conf --no-drop-root --no-chroot --no-rlimits & }} && "
        "for try in $(seq 40); do avahi-browse -rpt _phase-image._tcp >/run/seen; "
        "grep -q '^=' /run/seen && break; sleep 0.5; done; cat /run/seen; avahi-daemon --kill; wait"
    )
    with serving(repository, "--port", "8080", port=provider):
        seen = desk.run("unshare", "--mount", "sh", "-c", script)
    (line,) = [line for line in seen.splitlines() if line.startswith("=")]
    words = line.split(";")
    assert re.fullmatch(r"phase-stable-x86_64-[0-9a-f]{8}", words[3].replace("\\095", "_"))
    assert words[7:9] == [str(provider.address.ip), "8080"]
    assert {'"txtvers=1"', '"channel=stable"', '"arch=x86_64"', '"version=1"'} <= set(words[9].split())


class Netboot(SeedProvider):
    """The same on a segment whose DHCP server names it."""

    def boots(self, name: str, *, firmware: Firmware | None, option_rom: bool) -> None:
        """A machine with nothing of its own goes the whole way."""
        loop = self.loop
        client = loop.lab.vm(
            "client",
            arch=loop.arch,
            memory=768,
            firmware=firmware,
            option_rom=option_rom,
            segments=(loop.lan,),
        )
        with serving(loop.release.directory, "--port", str(PORT), port=self.port):
            client.start()
            # UEFI tries what it cannot boot from first, and fetches without a word.
            client.wait_mark("kernel", timeout=240, quiet=math.inf)
            loop.reaches_job(client)
        before, after = mark(client, "kernel"), mark(client, "kernel2")
        assert before.facts["boot_id"] != after.facts["boot_id"]
        loop.receipt_holds(client)
        loop.report(name, client)


@pytest.fixture
def netboot(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Netboot:
    if why := refusal():
        pytest.skip(why)
    return Netboot(lab, record, release, arch, tmp_path)


@pytest.mark.lab(vcpus=0.8, seconds=125)
def test_uefi_boots_over_http(netboot: Netboot) -> None:
    """The firmware's own HTTP client starts the seed, one file."""
    netboot.loop.lan.dhcp.options |= {60: b"HTTPClient", 67: f"{netboot.url}/boot.efi".encode()}
    netboot.boots("UEFI HTTP boot", firmware=lab_guest.FIRMWARE[netboot.loop.arch], option_rom=False)


@pytest.mark.images("x86_64")
@pytest.mark.lab(seconds=45)
def test_ipxe_boots(lab: Lab, record: Record, release: Release, tmp_path: Path) -> None:
    """A BIOS starts the iPXE in the network card's ROM, which reads the script.

    On x86_64 alone: QEMU's ROMs have no iPXE for another processor.
    """
    if why := refusal():
        pytest.skip(why)
    netboot = Netboot(lab, record, release, "x86_64", tmp_path)
    netboot.loop.lan.dhcp.options[67] = f"{netboot.url}/boot.ipxe".encode()
    netboot.boots("iPXE", firmware=None, option_rom=True)
