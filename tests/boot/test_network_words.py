"""What the script of the cards makes of the kernel command line: real kernel, the lab's servers.

VLANs and bonds are in scenarios/test_network_words.py: not every kernel that runs these tests has them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.net.neighbour import Neighbour
from lab.net.segment import Segment
from tests.boot.cards import FILES, Cards

_DHCP = 67


@contextmanager
def started(
    tmp_path: Path, segments: dict[str, Segment], line: str, mode: str = "internet"
) -> Iterator[Cards]:
    """A machine with a command line; `MAC0` in it is the first card's hardware address."""
    with Cards(tmp_path, segments) as machine:
        first = next(iter(segments))
        mac = machine.read(f"/sys/class/net/{first}/address").strip().replace(":", "-")
        awk = f"busybox awk -f {FILES / 'words'} >/run/phase/wanted; echo {mode} >/run/phase/mode"
        machine.run(f'echo "$line" | {awk}', line=line.replace("MAC0", mac))
        machine.start(FILES / "network")
        yield machine


def lease(machine: Cards, card: str = "eth0") -> str:
    return machine.read(f"/run/phase/cards/{card}/lease").strip()


def asked(segment: Segment) -> int:
    return len(segment.seen(lambda packet: packet.destination_port == _DHCP))


def test_a_fixed_address_is_used_and_dhcp_is_not_asked(tmp_path: Path, lan: Segment) -> None:
    line = "ip=10.77.0.99::10.77.0.1:255.255.255.0::eth0:none:1400"
    line += " nameserver=192.0.2.53 nameserver=[fd00::53]"
    with started(tmp_path, {"eth0": lan}, line) as machine:
        machine.wait(lambda: lease(machine) == "10.77.0.99", "address")
        assert machine.addresses() == ["10.77.0.99/24"]
        assert "via 10.77.0.1 dev eth0" in machine.run("ip route get 192.0.2.1")
        assert "mtu 1400" in machine.run("ip link show eth0")
        machine.wait(lambda: "192.0.2.53" in machine.read("/run/phase/resolv"), "name servers")
        named = machine.read("/run/phase/resolv").splitlines()[:2]
        assert named == ["nameserver 192.0.2.53", "nameserver fd00::53"]
        assert asked(lan) == 0


def test_a_fixed_address_of_another_machine_is_not_used(tmp_path: Path, lan: Segment) -> None:
    neighbour = Neighbour(IPv4Address("10.77.0.99"))
    lan.switch.add_service(neighbour, "neighbour")
    with started(tmp_path, {"eth0": lan}, "ip=10.77.0.99:::24::eth0:none") as machine:
        said = "eth0: another machine has the address 10.77.0.99"
        machine.wait(lambda: said in machine.log.read_text(), "a line that says so")
        assert "another machine has" in machine.read("/run/phase/cards/eth0/waits")
        assert machine.addresses() == []
        neighbour.address = IPv4Address("10.77.0.98")
        machine.wait(lambda: lease(machine) == "10.77.0.99", "address")
        assert machine.read("/run/phase/cards/eth0/waits") == ""


def test_a_fixed_ipv6_address(tmp_path: Path, lan: Segment) -> None:
    with started(tmp_path, {"eth0": lan}, "ip=[fd00:77::99]::[fd00:77::1]:64::eth0:none") as machine:
        machine.wait(lambda: lease(machine) == "fd00:77::99", "address")
        assert "fd00:77::99/64" in machine.addresses(family="-6")
        assert "default via fd00:77::1 dev eth0" in machine.run("ip -6 route")


@pytest.mark.parametrize("mode", ["local", "private"])
def test_a_mode_takes_no_way_out_of_the_line(tmp_path: Path, lan: Segment, mode: str) -> None:
    line = "ip=10.77.0.99::10.77.0.1:24::eth0:none ip=[fd00:77::99]::[fd00:77::1]:64::eth1:none"
    line += " nameserver=192.0.2.53"
    with started(tmp_path, {"eth0": lan, "eth1": lan}, line, mode) as machine:
        machine.wait(lambda: lease(machine) == "10.77.0.99" and bool(lease(machine, "eth1")), "addresses")
        assert not [route for route in machine.routes() if route.startswith("default")]
        assert "default" not in machine.run("ip -6 route")
        assert "nameserver" not in machine.read("/run/phase/resolv")


def test_a_card_that_is_off_sends_nothing(tmp_path: Path, lan: Segment, other: Segment) -> None:
    with started(tmp_path, {"eth0": lan, "eth1": other}, "ip=eth0:off") as machine:
        machine.wait(lambda: lease(machine, "eth1") == "10.77.1.10", "the other card's lease")
        waits = machine.read("/run/phase/cards/eth0/waits").strip()
        assert waits == "it is off, by ip= on the kernel command line"
        assert lan.seen(lambda packet: True) == []


def test_an_address_without_a_card_goes_where_a_cable_is(
    tmp_path: Path, lan: Segment, other: Segment
) -> None:
    with Cards(tmp_path, {"eth0": lan, "eth1": other}) as machine:
        machine.cable("eth0", plugged=False)
        machine.run("echo 'static - 10.77.1.99 24 - -' >/run/phase/wanted")
        machine.start(FILES / "network")
        machine.wait(lambda: lease(machine, "eth1") == "10.77.1.99", "address")
        machine.cable("eth0", plugged=True)
        machine.wait(lambda: lease(machine) == "10.77.0.10", "the other card's lease: there is one address")


def test_the_card_that_firmware_has_used_comes_first(tmp_path: Path, lan: Segment, other: Segment) -> None:
    """Both have a router; names and ways out are the boot card's, which would be second otherwise."""
    line = "ip=10.77.1.99::10.77.1.1:24 BOOTIF=01-MAC0"
    with started(tmp_path, {"eth1": other, "eth0": lan}, line) as machine:
        machine.wait(lambda: lease(machine, "eth1") == "10.77.1.99" and bool(lease(machine)), "addresses")
        machine.run("ip route replace default via 10.77.0.1 dev eth0 metric 100")
        assert "via 10.77.1.1 dev eth1" in machine.run("ip route get 192.0.2.1")
        assert machine.read("/run/phase/first").strip() == "eth1"


def test_a_boot_card_that_is_not_there_leaves_the_others_as_they_are(tmp_path: Path, lan: Segment) -> None:
    line = "BOOTIF=01-52-54-00-99-99-99 ip=10.77.0.99:::24"
    with started(tmp_path, {"eth0": lan}, line) as machine:
        machine.wait(lambda: lease(machine) == "10.77.0.10", "lease")
