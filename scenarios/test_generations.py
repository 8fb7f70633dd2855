"""Boot, serve, others boot from you: the first provider is long gone."""

import hashlib
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark, serves_health
from scenarios.nodes import OTHER

GENERATIONS = 5
#: MiB of a machine that keeps the releases of two architectures.
MIRRORING = 768


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=170)
def test_each_generation_boots_from_the_one_before(loop: Loop) -> None:
    """Only the newest machine is left each time, and it has what the first one had, by hash.

    Each has run its job and signed a receipt with a key of its own. What it serves was signed by the
    publisher, byte for byte: no machine on the way has signed anything else.
    """
    parent, nodes = loop.serve(staged=True), set()
    for number in range(1, GENERATIONS + 1):
        machine = loop.boot_vm(name=f"generation-{number}")
        loop.reaches_job(machine)
        assert mark(machine, "discover").facts["provider"] == f"http://{loop.address(parent)}:{PORT}"
        loop.handed_over(machine)
        parent.stop()
        parent = machine
        serves_health(machine)
        serves_what_was_published(loop, machine, loop.arch)
        loop.receipt_holds(machine)
        nodes.add(mark(machine, "job").facts["node"])
    assert len(nodes) == GENERATIONS
    loop.report(f"{GENERATIONS} generations", machine)


@pytest.mark.images("x86_64", "arm64")
@pytest.mark.lab(memory=1536, vcpus=1, seconds=300)
def test_each_generation_is_of_the_other_architecture(
    lab: Lab, record: Record, release: Release, tmp_path: Path
) -> None:
    """Each mirrors what the next one boots, and is off before that one serves: no key is on any of them."""
    loop = Loop(lab, record, release, "arm64", tmp_path)
    # The first has both from the start; all others have what the one before gave them.
    parent, nodes = loop.serve(arch="x86_64"), set()
    for number in range(1, GENERATIONS + 1):
        other = OTHER[loop.arch]
        machine = loop.boot_vm(
            f"phase.mirror={CHANNEL}/{other}", memory=MIRRORING, name=f"generation-{number}"
        )
        loop.reaches_job(machine)
        assert mark(machine, "discover").facts["provider"] == f"http://{loop.address(parent)}:{PORT}"
        loop.handed_over(machine)
        serves_health(machine)
        mirrors(machine, other)
        parent.stop()
        parent = machine
        for arch in (loop.arch, other):
            serves_what_was_published(loop, machine, arch)
        loop.receipt_holds(machine)
        nodes.add(mark(machine, "job").facts["node"])
        loop.arch = other
    assert len(nodes) == GENERATIONS
    loop.report(f"{GENERATIONS} generations of two architectures", machine)


def mirrors(machine: VM, arch: str) -> None:
    """Wait until it serves the release of another architecture, whole."""
    asked = f"wget -q -O /dev/null http://127.0.0.1:{PORT}/{CHANNEL}/{arch}/manifest.json 2>/dev/null"
    machine.shell().wait_until_succeeds(
        f"n=0; until {asked} || [ $((n += 1)) -gt 20 ]; do sleep 1; done; [ $n -le 20 ]", timeout=180
    )


def serves_what_was_published(loop: Loop, machine: VM, arch: str) -> None:
    """A machine answers with the artifacts of a release, and with metadata as the publisher signed it."""
    shell, published = machine.shell(), loop.release.repository
    hashes = [artifact.sha256 for artifact in published.manifest(CHANNEL, arch).artifacts.values()]
    wanted = {f"blobs/sha256/{sha256}": sha256 for sha256 in hashes}
    for name, data in published.metadata([(CHANNEL, arch)]).items():
        wanted[f"metadata/{name}"] = hashlib.sha256(data).hexdigest()
    asked = " ".join(wanted)
    said = shell.succeed(
        f"for each in {asked}; do wget -q -O - http://127.0.0.1:{PORT}/$each | sha256sum; done", timeout=120
    )
    assert [line.split()[0] for line in said.splitlines()] == list(wanted.values())
