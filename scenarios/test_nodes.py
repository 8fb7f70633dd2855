"""Nodes: a machine takes jobs of another one, which is of the other architecture, and signs for them."""

from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from scenarios import nodes
from scenarios.images import Release
from scenarios.loop import Loop
from scenarios.nodes import OTHER, PORT

pytestmark = pytest.mark.images("x86_64", "arm64")


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(memory=1024, seconds=60)
def test_a_job_of_the_other_architecture(loop: Loop, tmp_path: Path) -> None:
    """By `KEY@HOST:PORT`, from a client whose key the node was told; another one is refused by name."""
    own = nodes.identity(tmp_path, "ada")
    node_vm = nodes.system(loop, "node", loop.arch, f"phase.node={own.public_key}")
    client_vm = nodes.system(loop, "client", OTHER[loop.arch], "")
    client = nodes.gives_jobs(client_vm, own, tmp_path / "ada/identity.json")
    node = nodes.takes_jobs(node_vm)
    where = f"{node.key}@{loop.address(node.vm)}:{PORT}"
    assert client.submit(where) == "dlroW ,olleH"
    receipt = nodes.proves(client, node)
    assert receipt.engine.arch == loop.arch
    assert nodes.owners(node) == {"node"}
    # A key of its own, which the node was not told.
    client.shell.succeed("rm -r /var/lib/phase; python3 -s -m phase init")
    said = client.shell.fail(f"{client.command(where)} 2>&1")
    assert "not authorised" in said
