"""A crowd of seeds that boots at once takes the release from each other while it arrives."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.net.faults import Faults
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark

#: Bytes a second of the provider's cable: 20 Mbit/s.
RATE = 2_500_000
#: MiB of each machine: the smallest in which the whole loop runs (docs/develop/design.md).
MEMORY = {"x86_64": 256, "arm64": 320}
#: Machines at once: fewer where two cores emulate more slowly.
CROWD = {"x86_64": 8, "arm64": 3}
#: What the seed's init starts once the network is there, on the command line that is to count.
_AGAIN = (
    "echo '{line}' >/run/cmdline; mount -o bind /run/cmdline /proc/cmdline; "
    "(/usr/bin/python3.11 -s -S -P -c 'from phase.boot.start import main; main()' "
    "</dev/null >/dev/null 2>&1 &)"
)
_ALONE = "phase.mdns=off phase.timeout=8"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def found_nobody(seed: VM) -> None:
    """Its network is up, nobody is there to boot from, and it has a shell."""
    seed.wait_mark("network")
    seed.wait_mark("discover", outcome="failed", timeout=60)
    seed.shell()


@pytest.mark.lab(vcpus=2, memory=2816, seconds=400)
def test_a_crowd_takes_the_release_from_each_other(
    loop: Loop, arch: str, record_property: Callable[[str, object], None]
) -> None:
    """The provider sends it less than twice, whatever the number of machines; each runs its job."""
    clones, sent, seconds = crowd(loop, CROWD[arch], "")
    length = sum(each.length for each in loop.release.repository.manifest(CHANNEL, arch).artifacts.values())
    said = f"{len(clones)} machines, {sent / length:.2f} copies, the last after {seconds:.0f} s"
    record_property("crowd", said)
    print(said)
    assert sent < 2 * length, said
    assert len({mark(clone, "job").facts["node"] for clone in clones}) == len(clones)


def crowd(loop: Loop, count: int, words: str) -> tuple[list[VM], int, float]:
    """Boot machines at once from one provider with a slow cable.

    Args:
        loop: whose release they boot.
        count: machines.
        words: for their command line.

    Returns:
        The machines, the bytes that the provider's card sent until the last had fetched all, and the
        seconds from the first command until the last has run its job.
    """
    seed = loop.boot_vm(_ALONE, name="seed", on=False, memory=MEMORY[loop.arch])
    stage = loop.lab.stage("network", seed, until=found_nobody)
    server = loop.serve(staged=True)
    loop.lan.link(server).from_machine = Faults(rate=RATE)
    provider = f"phase.provider=http://{loop.address(server)}:{PORT} phase.mdns=off"
    line = seed.append.replace(_ALONE, f"{provider} {words}".strip())
    clones = [stage.clone(f"seed{number}") for number in range(count)]
    for clone in clones:
        clone.shell()
    before, begun = _sent(server), time.monotonic()
    for clone in clones:
        clone.shell().succeed(_AGAIN.format(line=line))
    for clone in clones:
        clone.wait_mark("handoff", timeout=600)
    sent = _sent(server) - before
    for clone in clones:
        clone.wait_mark("job", timeout=300)
    return clones, sent, time.monotonic() - begun


def _sent(server: VM) -> int:
    """Bytes that its network card has sent: all of it, also what its clients broke off."""
    return int(server.shell().succeed("cat /sys/class/net/e*/statistics/tx_bytes").split()[0])
