"""The lab's network: what a fault does to a cable is measured inside of the machines at its ends."""

import re
import subprocess
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from lab.errors import ProductError
from lab.net.dhcp import DhcpFaults
from lab.net.dns import DnsServer
from lab.net.faults import Faults
from lab.net.packet import ICMP
from lab.net.segment import Segment
from lab.qemu.vm import VM
from lab.shell import Shell
from lab.topology import Lab
from scenarios import lab_guest


class Pair(NamedTuple):
    """Two machines on a segment; one asks, the other answers."""

    lan: Segment
    asking: VM
    answering: VM
    shell: Shell
    other: Shell
    there: str

    def ping(self, count: int, *, gap: float = 0.05, options: str = "") -> str:
        """What `ping` says; that nothing comes back is no failure here."""
        return self.shell.run(f"ping -c {count} -i {gap} -W 2 {options} {self.there}", timeout=120).output


@pytest.fixture
def pair(lab: Lab, arch: str, tmp_path: Path) -> Pair:
    kernel, initrd = lab_guest.build(arch, tmp_path)
    lan = lab.segment("lan")
    made = [
        lab.vm(name, arch=arch, memory=256, kernel=kernel, initrd=initrd, append="panic=-1", segments=(lan,))
        for name in ("asking", "answering")
    ]
    for vm in made:
        vm.start()
    for vm in made:
        vm.wait_mark("init")
    asking, answering = made
    found = Pair(lan, asking, answering, asking.shell(), answering.shell(), str(lab.address(answering, lan)))
    found.shell.succeed(f"ping -c 2 -W 5 {found.there}")
    return found


def times(said: str) -> list[float]:
    """Milliseconds of each answer."""
    return [float(each) for each in re.findall(r"time=([\d.]+) ms", said)]


def numbers(said: str) -> list[int]:
    """The answers' sequence numbers, in the order they came."""
    return [int(each) for each in re.findall(r"seq=(\d+)", said)]


def answers(said: str) -> int:
    return len(set(numbers(said)))


@pytest.mark.lab(vcpus=0.2, seconds=50)
def test_a_cable_loses_delays_doubles_and_reorders(pair: Pair) -> None:
    """Each fault by itself is seen inside the machine, as strong as it was asked for; without it, not."""
    link = pair.lan.link(pair.answering)
    whole = pair.ping(40)
    assert numbers(whole) == list(range(40)), "nothing is wrong, so nothing may be lost, doubled or late"
    # What this host takes for it by itself, however busy it is.
    own = max(times(whole))

    link.to_machine = Faults(loss=0.3)
    # 3.3 standard deviations of 200 throws: one seed in a thousand would fail, and always the same one.
    assert answers(pair.ping(200, gap=0.02)) / 200 == pytest.approx(0.7, abs=3.3 * (0.3 * 0.7 / 200) ** 0.5)
    lost = link.inward.lost["loss"]
    assert lost > 0

    link.to_machine = Faults(delay=0.2)
    link.from_machine = Faults(delay=0.1)
    slow = times(pair.ping(10, gap=0.5))
    assert 300 <= min(slow) <= 450 + own

    link.from_machine = Faults()
    link.to_machine = Faults(delay=0.3, jitter=0.25)
    varied = times(pair.ping(40, gap=0.6))
    assert min(varied) >= 50
    assert max(varied) - min(varied) > 250
    assert median(varied) <= 550 + own

    link.to_machine = Faults(duplicate=0.5)
    doubled = numbers(pair.ping(60))
    assert 12 <= len(doubled) - len(set(doubled)) <= 48

    link.to_machine = Faults(reorder=0.3, late=0.4)
    came = numbers(pair.ping(60, gap=0.1))
    assert sum(b < a for a, b in pairwise(came)) >= 4
    pair.lan.heal()
    assert numbers(pair.ping(20)) == list(range(20))


@pytest.mark.lab(vcpus=0.2)
def test_a_cable_corrupts_narrows_and_breaks(pair: Pair) -> None:
    """Bits turn, long frames and then all frames vanish, and a pulled plug is noticed."""
    link = pair.lan.link(pair.answering)
    counts = "cat /proc/net/snmp | grep -E '^(Ip|Icmp):'"
    before = pair.other.succeed(counts)
    link.to_machine = Faults(corrupt=1.0)
    assert answers(pair.ping(20, options="-s 1000")) <= 2
    after = pair.other.succeed(counts)
    assert errors(after) - errors(before) >= 15, "the machine itself must have seen wrong checksums"

    link.to_machine = Faults(mtu=1000)
    assert answers(pair.ping(5, options="-s 900")) == 5
    assert answers(pair.ping(5, options="-s 1000")) == 0

    pair.lan.heal()
    pair.lan.partition(pair.answering)
    assert answers(pair.ping(3)) == 0
    assert pair.other.succeed("cat /sys/class/net/eth0/carrier").strip() == "1"
    pair.lan.heal()

    pair.lan.carrier(pair.answering, up=False)
    pair.other.wait_until_succeeds("grep -q 0 /sys/class/net/eth0/carrier")
    assert answers(pair.ping(3)) == 0
    pair.lan.carrier(pair.answering, up=True)
    pair.other.wait_until_succeeds("grep -q 1 /sys/class/net/eth0/carrier")
    pair.shell.wait_until_succeeds(f"ping -c 1 -W 2 {pair.there}")


def errors(snmp: str) -> int:
    """Packets whose checksum the machine found wrong."""
    found = 0
    for protocol, name in (("Ip", "InHdrErrors"), ("Icmp", "InCsumErrors")):
        names, values = (line.split() for line in snmp.splitlines() if line.startswith(f"{protocol}:"))
        found += int(values[names.index(name)])
    return found


@pytest.mark.lab(vcpus=0.3)
def test_a_cable_has_a_rate(pair: Pair) -> None:
    """A download takes as long as its bytes need at the rate, and comes whole."""
    pair.other.succeed("head -c 400000 /dev/urandom >/tmp/file; httpd -h /tmp")
    read = "read -r now rest </proc/uptime; echo $now"
    fetch = f"{read}; wget -q -O - http://{pair.there}/file | sha256sum; {read}"
    sound = pair.other.succeed("sha256sum </tmp/file").strip()
    took = []
    for faults in (Faults(), Faults(rate=100_000)):
        pair.lan.link(pair.answering).from_machine = faults
        start, digest, end = pair.shell.succeed(fetch, timeout=120).splitlines()
        assert digest == sound
        took.append(float(end) - float(start))
    own, narrow = took
    # Four seconds of bytes; headers, and frames that TCP has to send again, may double that.
    assert 3.9 <= narrow <= 8 + 3 * own


@pytest.mark.lab(vcpus=0.3)
def test_traffic_is_captured_and_stays(pair: Pair, tmp_path: Path) -> None:
    """Wireshark reads every link's frames (network.md); the segment knows what was on it and strayed."""
    pair.ping(3)
    echoes = pair.lan.seen(lambda packet: packet.protocol == ICMP and packet.operation == 8)
    assert len(echoes) >= 3
    assert {str(echo.destination) for echo in echoes} == {pair.there}
    pair.lan.expect_nothing_left()
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction"]
    command = ["tshark", "-r", str(pair.lan.capture()), "-Y", "icmp.type == 8", *fields]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [(name, int(way, 0)) for name, way in (line.split("\t") for line in said)]
    assert rows.count(("asking", 1)) == rows.count(("answering", 2)) == len(echoes)

    pair.shell.succeed("ip route add default dev eth0")
    pair.shell.fail("ping -c 1 -W 1 192.0.2.1")
    assert {str(stray.destination) for stray in pair.lan.strays()} == {"192.0.2.1"}
    with pytest.raises(ProductError, match=r"left the segment lan: .* 192\.0\.2\.1"):
        pair.lan.expect_nothing_left()


@pytest.mark.lab(vcpus=0.2, seconds=40)
def test_names_and_addresses_go_wrong(pair: Pair) -> None:
    """A machine's own resolver and DHCP client meet servers that are silent, wrong or late."""
    server = DnsServer(IPv4Address("10.77.0.3"))
    server.add("host.lab", "A", pair.there)
    pair.lan.switch.add_service(server, "dns")
    look = f"busybox nslookup -type=a host.lab {server.address}"
    assert pair.there in pair.shell.succeed(look)
    server.fault = "servfail"
    assert "SERVFAIL" in pair.shell.fail(look)
    server.fault = "timeout"
    assert "timed out" in pair.shell.fail(look)
    server.fault = "wrong-id"
    assert pair.there not in pair.shell.run(look).output
    server.fault = None
    assert pair.there in pair.shell.succeed(look)

    # The shell's script leaves the card alone: only what the client says counts.
    ask = "busybox udhcpc -q -f -n -t 2 -T 1 -A 1 -i eth0 -s /bin/true 2>&1"
    mine = str(pair.lan.dhcp.lease_of(bytes.fromhex(pair.asking.spec.cards[0].mac.replace(":", ""))))
    assert f"lease of {mine} obtained" in pair.shell.succeed(ask)
    pair.lan.dhcp.faults = DhcpFaults(silent=True)
    assert "no lease" in pair.shell.fail(ask)
    pair.lan.dhcp.faults = DhcpFaults(nak=True)
    # It begins anew, again and again, until it is told to end; then it ends well.
    refused = pair.shell.succeed(f"busybox timeout 4 {ask.replace('/bin/true', '/bin/echo')}")
    assert "nak" in refused.split()
    assert "obtained" not in refused
    pair.lan.dhcp.faults = DhcpFaults(address=IPv4Address("10.77.0.99"), lease=60)
    assert re.search(r"lease of 10\.77\.0\.99 obtained.* lease time 60", pair.shell.succeed(ask))
    pair.lan.dhcp.faults = DhcpFaults()
    pair.lan.link("dhcp").from_machine = Faults(delay=5)
    assert "no lease" in pair.shell.fail(ask)
    pair.lan.heal()
    # What is under way is not overtaken: the late answers come first.
    assert f"lease of {mine} obtained" in pair.shell.wait_until_succeeds(ask)
