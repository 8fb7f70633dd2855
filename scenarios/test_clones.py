"""Seeds that were frozen with their network up, and go their ways from there together."""

from pathlib import Path

import pytest

from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import Release
from scenarios.loop import PORT, Loop, mark

#: What the seed's init starts once the network is there, on the command line that is to count.
_AGAIN = (
    "echo '{line}' >/run/cmdline; mount -o bind /run/cmdline /proc/cmdline; "
    "(/usr/bin/python3.11 -s -S -P -c 'from phase.boot.start import main; main()' "
    "</dev/null >/dev/null 2>&1 &)"
)


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def found_nobody(seed: VM) -> None:
    """Its network is up, nobody is there to boot from, and it has a shell."""
    seed.wait_mark("network")
    seed.wait_mark("discover", outcome="failed", timeout=60)
    seed.shell()


@pytest.mark.lab(seconds=75)
def test_seeds_from_one_stage_boot_from_one_provider(loop: Loop) -> None:
    """Each under its own name and address, to a system with a key and a random generator of its own."""
    seed = loop.boot_vm("phase.mdns=off phase.timeout=8", name="seed", on=False)
    stage = loop.lab.stage("network", seed, until=found_nobody)
    server = loop.serve(staged=True)
    clones = [stage.clone(name) for name in ("one", "two")]
    line = seed.append.replace("phase.mdns=off phase.timeout=8", "").strip()
    for clone in clones:
        clone.shell().succeed(_AGAIN.format(line=line))
    for clone in clones:
        clone.wait_mark("job", timeout=240)
        assert mark(clone, "discover").facts["provider"] == f"http://{loop.address(server)}:{PORT}"
        assert f" {loop.address(clone)}/" in clone.shell().succeed("ip -4 address show")
    assert len({mark(clone, "job").facts["node"] for clone in clones}) == len(clones)
    assert len({mark(clone, "kernel2").facts["boot_id"] for clone in clones}) == len(clones)
