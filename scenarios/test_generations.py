"""Boot, serve, others boot from you: the first provider is long gone."""

from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark, serves_health

GENERATIONS = ("child", "grandchild", "great-grandchild")


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=100)
def test_each_generation_boots_from_the_one_before(loop: Loop) -> None:
    """Only the newest machine is left each time, and it has what the first one had, by hash."""
    parent = loop.serve(staged=True)
    manifest = loop.release.repository.manifest(CHANNEL, loop.arch)
    for name in GENERATIONS:
        machine = loop.boot_vm(name=name)
        loop.reaches_job(machine)
        assert mark(machine, "discover").facts["provider"] == f"http://{loop.address(parent)}:{PORT}"
        loop.handed_over(machine)
        parent.stop()
        parent = machine
        serves_health(machine)
        shell = machine.shell()
        for artifact in manifest.artifacts.values():
            url = f"http://127.0.0.1:{PORT}/blobs/sha256/{artifact.sha256}"
            served = shell.succeed(f"wget -q -O - {url} | sha256sum")
            assert served.split()[0] == artifact.sha256
    loop.report(f"{len(GENERATIONS)} generations", machine)
    loop.receipt_holds(machine)
