"""Networks that a person describes on the kernel command line: in the seed, and in the system after it."""

from pathlib import Path

import pytest

from lab.net.dhcp import DhcpFaults
from lab.net.vlan import Vlan
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import Release
from scenarios.loop import PORT, Loop, mark

#: Nobody has it by DHCP.
ADDRESS = "10.77.0.99"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(vcpus=0.5, seconds=45)
def test_fixed_address(loop: Loop) -> None:
    """No DHCP server answers, and nobody has to."""
    loop.lan.dhcp.faults = DhcpFaults(silent=True)
    with loop.provided():
        client = loop.boot_vm(f"ip={ADDRESS}:::24::eth0:none")
        loop.reaches_job(client)
    assert mark(client, "network").facts["address"] == ADDRESS
    shell = client.shell()
    assert f"ip={ADDRESS}:::24::eth0:none" in shell.succeed("cat /proc/cmdline").split()
    assert shell.succeed("cat /run/phase/cards/eth0/lease") == ADDRESS
    shell.wait_until_succeeds(f"wget -q -O - http://{ADDRESS}:{PORT}/health")
    loop.report("fixed address", client)


@pytest.mark.lab(vcpus=0.5, seconds=60)
def test_vlan_on_a_bond(loop: Loop) -> None:
    """Two cables to a trunk; a cable that is pulled is not missed. Without tags there is nothing on them."""
    trunks = tuple(loop.lab.segment(name) for name in ("left", "right"))
    for trunk in trunks:
        trunk.dhcp.faults = DhcpFaults(silent=True)
        Vlan(5, trunk, loop.lan)
    words = "bond=bond0:eth0,eth1:mode=active-backup vlan=bond0.5:bond0"
    with loop.provided():
        client = loop.boot_vm(words, segments=trunks)
        loop.reaches_job(client)
        assert mark(client, "network").facts["interface"] == "bond0.5"
        shell = client.shell()
        address = shell.succeed("cat /run/phase/cards/bond0.5/lease")
        assert address.startswith("10.77.0.")
        active = shell.succeed("cat /sys/class/net/bond0/bonding/active_slave")
        trunks[int(active.removeprefix("eth"))].carrier(client, up=False)
        shell.wait_until_succeeds(f"! grep -q {active} /sys/class/net/bond0/bonding/active_slave")
        port = loop.lab.host_ports["provider"]
        port.run("curl", "-sSf", "--retry", "9", "--retry-all-errors", f"http://{address}:{PORT}/health")
    loop.report("VLAN on a bond", client)
