"""Hostile providers against a seed: alone they get nowhere, and beside an honest one they stop nobody.

What each attack is, and the rest of them, against the same client as a program: docs/develop/attacks.md. The
providers forge x86_64 releases, so that is what the machine under test is; what it does about them is the
same code everywhere.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.hostile.world import ARCH, KEYS
from lab.net.hostport import refusal
from lab.plugin import Record
from lab.topology import Lab
from phase.release.repository import Repository
from scenarios.images import CHANNEL, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop
from scenarios.serving import serving

pytestmark = pytest.mark.images("x86_64", "arm64")
#: Of every kind some, and what the seed says of them: the network's, the signatures', the age's, the
#: wrong machine's, the names'.
ATTACKS = {
    "endless-headers": "headers have more",
    "redirect-loop": "redirect",
    "truncated": "bytes early",
    "signed-by-a-stranger": "is signed by 0 of",
    "changed-cmdline": "is signed by 0 of",
    "expired-manifest": "expired at",
    "mixed-snapshot": "has SHA-256",
    "crossed-manifests": "bytes; the limit is",
    "traversal-name": "not a release to boot",
}


class Town:
    """A segment with a port for the hostile providers and one for the honest."""

    def __init__(self, lab: Lab, record: Record, release: Release, work: Path) -> None:
        made = Repository.create(work / "now", keys=KEYS)
        for number, arch in ((0, ARCH), (0, "arm64"), (1, ARCH)):
            artifacts = release.repository.manifest(CHANNEL, arch).artifacts
            files = {name: release.blob(artifact.sha256) for name, artifact in artifacts.items()}
            made.add(CHANNEL, arch, files, cmdline=SIGNED_CMDLINE, release=f"1.0.{number}")
            made.publish()
            if not number:
                shutil.copytree(work / "now", work / "before", symlinks=True, dirs_exist_ok=True)
        self.work = work
        self.loop = Loop(lab, record, Release(work / "now", made), ARCH, work)
        self.evil = lab.host_port("evil", self.loop.lan)
        self.good = lab.host_port("good", self.loop.lan)

    @contextlib.contextmanager
    def hostile(self, *more: str) -> Iterator[list[str]]:
        """Every attack, and more of them, each a provider; their URLs."""
        command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "fixtures.hostile", "serve"]
        command += [*ATTACKS, *more]
        command += ["--bind", str(self.evil.address.ip), "--port", str(PORT)]
        command += ["--root", str(self.work / "root")]
        command += ["--repositories", str(self.work / "before"), str(self.work / "now")]
        process = subprocess.Popen(self.evil.command(*command), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in (*ATTACKS, *more)]
            yield [line.split()[2].rstrip(";") for line in lines]
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def town(lab: Lab, record: Record, release: Release, tmp_path: Path) -> Town:
    if why := refusal():
        pytest.skip(why)
    return Town(lab, record, release, tmp_path)


def _told(urls: list[str]) -> str:
    return f"phase.provider={','.join(urls)} phase.mdns=off"


@pytest.mark.lab(vcpus=0.3, seconds=45)
def test_alone_they_boot_nothing(town: Town) -> None:
    """Each with another lie, and a reason against each."""
    loop = town.loop
    with town.hostile() as urls:
        client = loop.boot_vm(f"{_told(urls)} phase.timeout=40")
        loop.refuses(client, step="trust")
    loop.never_handed_over(client)
    said = client.shell().succeed("dmesg | grep 'trust: not from'").splitlines()
    for url, reason in zip(urls, ATTACKS.values(), strict=True):
        assert any(f"not from {url}: " in line and reason in line for line in said), (url, reason, said)
    loop.report("hostile providers alone", client)


@pytest.mark.lab(seconds=35)
def test_beside_an_honest_one_they_stop_nobody(town: Town) -> None:
    """The honest one is the last that the machine is told of; one has true metadata and false bytes."""
    loop = town.loop
    honest = serving(loop.release.directory, "--port", str(PORT), port=town.good)
    with town.hostile("flipped-bit") as urls, honest as url:
        client = loop.boot_vm(_told([*urls, url]))
        loop.reaches_job(client)
    loop.handed_over(client)
    loop.receipt_holds(client)
    loop.report("hostile providers beside an honest one", client)


@pytest.mark.lab(vcpus=0.5, seconds=60)
def test_a_flood_of_answers_hides_nobody(town: Town) -> None:
    """Sixteen providers that are none, told of fifty times a second, beside one that is."""
    loop = town.loop
    address = str(town.evil.address.ip)
    flood = [sys.executable, "-m", "fixtures.hostile.flood", "--bind", address]
    flood += ["--channel", CHANNEL, "--arch", ARCH]
    with serving(loop.release.directory, "--port", str(PORT), port=town.good) as url:
        process = subprocess.Popen(
            town.evil.command("setpriv", "--pdeathsig", "TERM", *flood), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            assert "flooding" in process.stdout.readline()
            client = loop.boot_vm()
            # It is told that two of them prove nothing, and looks again.
            client.console.wait(
                lambda: next((found for found in client.marks if found.step == "job"), None),
                "hello job",
                timeout=300,
            )
        finally:
            process.terminate()
            process.communicate(timeout=60)
    trusted = [
        found.facts["provider"] for found in client.marks if found.step == "trust" and found.outcome == "ok"
    ]
    assert trusted == [url]
    assert f"trust: not from http://{address}:" in client.console.text, "nobody was taken in: no flood"
    loop.handed_over(client)
    loop.report("flood of mDNS answers", client)
