"""The loop: one machine serves, another boots from it, verifies, hands over and works.

Every scenario starts machines from nothing; what a machine knows is on its command line. Everything
is read over the serial console, so that a board could stand where a VM stands.
"""

from pathlib import Path

import pytest

from lab.board.description import Description
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark, serves_health

OTHER = {"x86_64": "arm64", "arm64": "x86_64"}


@pytest.fixture
def loop(
    lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path, board: Description | None
) -> Loop:
    return Loop(lab, record, release, arch, tmp_path, board)


@pytest.mark.lab(seconds=60)
def test_boots_by_mdns(loop: Loop) -> None:
    """(a) The seed knows its channel only, finds the provider on its segment, and serves the next one."""
    server = loop.serve()
    client = loop.boot()
    loop.reaches_job(client)
    assert mark(client, "discover").facts["source"] == "mdns"
    loop.report("a mDNS", client)
    loop.handed_over(client)
    loop.receipt_holds(client)
    server.stop()
    serves_health(client)
    following = loop.boot_vm(name="second")
    loop.reaches_job(following)
    loop.receipt_holds(following)


@pytest.mark.lab(seconds=45)
def test_boots_from_a_named_provider(loop: Loop) -> None:
    """(b) `phase.provider=` names it; nobody advertises."""
    server = loop.serve("phase.mdns=off")
    client = loop.boot(f"phase.provider=http://{loop.address(server)}:{PORT} phase.mdns=off")
    loop.reaches_job(client)
    assert mark(client, "discover").facts["source"] == "cmdline"
    loop.report("b phase.provider", client)
    loop.handed_over(client)
    loop.receipt_holds(client)


@pytest.mark.images("x86_64", "arm64")
@pytest.mark.lab(seconds=45)
def test_boots_from_the_other_architecture(loop: Loop) -> None:
    """(c) The machine that serves is of the other architecture."""
    server = loop.serve(arch=OTHER[loop.arch])
    client = loop.boot()
    loop.reaches_job(client)
    assert server.arch != client.arch
    loop.report(f"c {server.arch} serves", client)
    loop.handed_over(client)
    loop.receipt_holds(client)


@pytest.mark.lab(vcpus=0.5, seconds=40)
def test_refuses_a_flipped_bit(loop: Loop) -> None:
    """(d) One bit of the kernel is wrong on the provider's disk."""
    kernel = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts["kernel"]
    server = loop.serve(flip=kernel.sha256)
    client = loop.boot("phase.timeout=20")
    # A provider that has noticed serves the file no longer.
    loop.gives_up(client)
    refused = next(found for found in client.marks if found.step == "fetch")
    assert "kernel" in str(refused.facts["reason"])
    assert loop.address(server) in str(refused.facts["reason"])
    loop.report("d flipped bit", client)
    loop.never_handed_over(client)


@pytest.mark.lab(vcpus=0.5, seconds=40)
def test_refuses_a_stranger(loop: Loop, tmp_path: Path) -> None:
    """(e) The release is whole and signed, by keys this seed does not trust."""
    stranger = Release.publish(tmp_path / "stranger", keys="stranger", arches=(loop.arch,))
    loop.serve(release=stranger)
    client = loop.boot("phase.timeout=20")
    refused = loop.refuses(client, step="trust")
    assert "sign" in str(refused.facts["reason"])
    loop.report("e stranger", client)
    loop.never_handed_over(client)
