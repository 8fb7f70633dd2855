"""Stages and clones: what a machine started from a kept memory shares with others, and what not."""

import time
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from lab.errors import MisuseError
from lab.net.segment import Segment
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest


def ready(*machines: VM) -> None:
    for vm in machines:
        vm.wait_mark("init")


def noted(vm: VM) -> None:
    vm.wait_mark("init")
    vm.shell().succeed("echo before >/tmp/note")


def long_ago(vm: VM) -> None:
    """Wherever the stage comes from: by the clock of its machine, it is from 2004."""
    vm.wait_mark("init")
    vm.shell().succeed("date -s @1100000000")


def serving(server: VM, client: VM) -> None:
    ready(server, client)
    server.shell().succeed("echo served >/tmp/page; httpd -h /tmp")


class Plans:
    """Declares small machines of one architecture."""

    def __init__(self, lab: Lab, arch: str, directory: Path) -> None:
        self.lab = lab
        self.arch = arch
        self.kernel, self.initrd = lab_guest.build(arch, directory)

    def __call__(self, name: str, *segments: Segment) -> VM:
        """One, switched off."""
        return self.lab.vm(
            name,
            arch=self.arch,
            memory=128,
            kernel=self.kernel,
            initrd=self.initrd,
            append="quiet panic=-1",
            segments=segments,
        )


@pytest.fixture
def plans(lab: Lab, arch: str, tmp_path: Path) -> Plans:
    return Plans(lab, arch, tmp_path)


@pytest.mark.lab(vcpus=0.5)
def test_clones_are_machines_of_their_own(plans: Plans, lab: Lab) -> None:
    """Names, addresses, chance and time are each clone's own; what they share is the past."""
    lan = lab.segment("lan")
    stage = lab.stage("noted", plans("node", lan), until=noted)
    one, two = stage.clone("one"), stage.clone("two")
    shells = [one.shell(), two.shell()]
    told = [
        [shell.succeed(f"cat {path}") for shell in shells]
        for path in ("/proc/sys/kernel/hostname", "/sys/class/net/eth0/address")
    ]
    assert told == [["one", "two"], [vm.spec.cards[0].mac for vm in (one, two)]]
    # Before anything else can have stirred the generator: the same kernel would give the same bytes.
    assert len({shell.succeed("head -c 16 /dev/urandom | base64") for shell in shells}) == 2
    for vm, shell in zip((one, two), shells, strict=True):
        addresses = shell.succeed("ip -4 address show eth0")
        assert addresses.count("inet ") == 1
        assert f"inet {lab.address(vm, lan)}/24" in addresses
        last = vm.spec.cards[0].mac.split(":")[3:]
        link_local = IPv6Address("fe80::5054:ff:fe{}:{}{}".format(*last))
        shell.wait_until_succeeds(f"ip -6 address show eth0 | grep -v tentative | grep {link_local}")
        assert shell.succeed("ip -6 address show eth0").count("inet6 ") == 1
        assert shell.succeed("cat /tmp/note") == "before"
        assert vm.facts["stage"] == "noted"
        with pytest.raises(MisuseError, match="has not booted"):
            vm.timeline({})
    shells[0].succeed(f"ping -c 1 -W 5 {lab.address(two, lan)}")
    shells[1].succeed(f"ping -c 1 -W 5 {lab.address(one, lan)}")


@pytest.mark.lab(vcpus=0.5)
def test_a_clone_wakes_in_the_present(plans: Plans) -> None:
    """Its stage was frozen in another time: a clone whose clock went on from there would say so."""
    stage = plans.lab.stage("long-ago", plans("node"), until=long_ago)
    shell = stage.clone("one").shell()
    assert int(shell.succeed("date +%s")) == pytest.approx(time.time(), abs=60)


@pytest.mark.lab(vcpus=0.5)
def test_what_a_clone_writes_is_its_own(plans: Plans, lab: Lab) -> None:
    """Neither another clone nor the stage sees it; a clone switched on again boots."""
    stage = lab.stage("noted", plans("node"), until=noted)
    one, two = stage.clone("one"), stage.clone("two")
    one.shell().succeed("echo after >/tmp/note; head -c 20000000 /dev/zero >/tmp/fill")
    assert two.shell().succeed("cat /tmp/note; ls /tmp") == "before\nnote"
    assert stage.clone("three").shell().succeed("cat /tmp/note; ls /tmp") == "before\nnote"
    one.stop()
    one.start()
    one.wait_mark("init")
    assert "stage" not in one.facts
    one.shell().fail("ls /tmp/note")


@pytest.mark.lab(vcpus=0.6)
def test_a_topology_starts_from_a_stage_together(plans: Plans, lab: Lab) -> None:
    """Both machines, their addresses and what they know of each other, again and again."""
    lan = lab.segment("lan")
    stage = lab.stage("serving", plans("server", lan), plans("client", lan), until=serving)
    server = client = None
    for _ in range(3):
        server, client = stage.start()
        page = client.shell().succeed(f"wget -q -O - http://{lab.address(server, lan)}/page")
        assert page == "served"
        with pytest.raises(MisuseError, match="running"):
            stage.start()
        server.stop()
        client.stop()
    again, _ = stage.clones("b")
    stage.start()
    assert lab.address(again, lan) != lab.address(stage.machines[0], lan)
    shell = stage.machines[1].shell()
    for vm in (again, stage.machines[0]):
        assert shell.succeed(f"wget -q -O - http://{lab.address(vm, lan)}/page") == "served"
    with pytest.raises(MisuseError, match="several machines"):
        stage.clone("c")


def test_twelve_at_once(plans: Plans, lab: Lab) -> None:
    """A dozen clones live side by side and share what they have not written."""
    lan = lab.segment("lan")
    stage = lab.stage("ready", plans("node", lan), until=ready)
    clones = [stage.clone(f"c{number}") for number in range(12)]
    last = clones[-1].shell()
    for vm in clones[:-1]:
        last.succeed(f"ping -c 1 -W 5 {lab.address(vm, lan)}")
    names = {vm.shell().succeed("cat /proc/sys/kernel/hostname") for vm in clones}
    assert names == {vm.name for vm in clones}
    assert sum(_private(vm) for vm in clones) < 12 * 128 << 20


def _private(vm: VM) -> int:
    """Bytes of memory that this machine alone has."""
    rows = Path(f"/proc/{vm.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) << 10 for row in rows if row.startswith("Private_"))
