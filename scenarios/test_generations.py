"""Boot, serve, others boot from you: the first provider is long gone."""

import hashlib
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark, serves_health

GENERATIONS = 5


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
