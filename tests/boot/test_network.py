"""The scripts that keep a machine's cards connected: real udhcpc, real kernel, the lab's servers.

`udhcpc` is what udhcpc calls with what the DHCP server said, `network` what looks after the cards.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from lab.net.advertiser import Advertiser
from lab.net.dhcp import DhcpFaults
from lab.net.faults import Faults
from lab.net.neighbour import Neighbour
from lab.net.packet import ARP
from lab.net.segment import Segment
from tests.boot.cards import FILES, Cards

LEASE = {"ip": "10.77.0.10", "mask": "24", "router": "10.77.0.1", "dns": "10.77.0.3"}


@pytest.fixture
def machine(tmp_path: Path, lan: Segment) -> Iterator[Cards]:
    with Cards(tmp_path, {"eth0": lan}) as made:
        made.run("ip link set eth0 up")
        yield made


@pytest.fixture
def two(tmp_path: Path, lan: Segment, other: Segment) -> Iterator[Cards]:
    with Cards(tmp_path, {"eth0": lan, "eth1": other}) as made:
        made.run("ip link set eth0 up; ip link set eth1 up")
        yield made


def kernel_asks(machine: Cards, address: str) -> str:
    """Which way the kernel takes to an address."""
    return machine.run(f"ip route get {address} | head -1").strip()


# -- what a lease gives ----------------------------------------------------------------------------


def test_a_lease_gives_address_route_and_name_servers(machine: Cards) -> None:
    machine.lease("bound", **LEASE, domain="example.org", search="lab.example.org bad;name")
    assert machine.addresses() == ["10.77.0.10/24"]
    assert kernel_asks(machine, "192.0.2.1").startswith("192.0.2.1 via 10.77.0.1 dev eth0")
    assert machine.read("/run/phase/resolv").splitlines() == [
        "nameserver 10.77.0.3", "search example.org lab.example.org", "options timeout:2 attempts:2",
    ]  # fmt: skip
    assert machine.read("/run/phase/cards/eth0/lease").strip() == "10.77.0.10"


def test_classless_routes_without_a_router_option(machine: Cards) -> None:
    """A /32 lease, and a gateway that is in no network of the card, as clouds give."""
    routes = "10.128.0.1/32 0.0.0.0 0.0.0.0/0 10.128.0.1"
    machine.lease("bound", ip="10.128.0.7", mask="32", staticroutes=routes, dns="169.254.169.254")
    assert machine.addresses() == ["10.128.0.7/32"]
    assert kernel_asks(machine, "192.0.2.1").startswith("192.0.2.1 via 10.128.0.1 dev eth0 src 10.128.0.7")


def test_a_gateway_off_the_link_without_a_route_to_it(machine: Cards) -> None:
    machine.lease("bound", ip="198.51.100.7", mask="32", router="203.0.113.1")
    assert kernel_asks(machine, "192.0.2.1").startswith("192.0.2.1 via 203.0.113.1 dev eth0")


def test_a_lease_of_one_address_without_a_router(machine: Cards) -> None:
    machine.lease("bound", ip="10.77.0.10", mask="32")
    assert machine.addresses() == ["10.77.0.10/32"]
    assert not [route for route in machine.routes() if route.startswith("default")]


def test_classless_routes_win_over_the_router_option(machine: Cards) -> None:
    """RFC 3442: who understands option 121 does not look at option 3."""
    machine.lease("bound", **LEASE, staticroutes="0.0.0.0/0 10.77.0.9 172.16.0.0/12 10.77.0.8")
    assert " via 10.77.0.9 " in kernel_asks(machine, "192.0.2.1")
    assert " via 10.77.0.8 " in kernel_asks(machine, "172.20.0.1")


def test_a_second_gateway_stands_in_for_a_dead_one(machine: Cards, lan: Segment) -> None:
    lan.switch.add_service(Neighbour(IPv4Address("10.77.0.2")), "second")
    gateways = ["10.77.0.9", "10.77.0.2"]
    for what in ("bound", "renew"):
        machine.lease(what, **LEASE | {"router": " ".join(gateways)})
        assert [route.split()[2] for route in machine.routes() if route.startswith("default")] == gateways
    machine.run("busybox ping -c 1 -W 1 192.0.2.1 || true")
    machine.wait(lambda: " via 10.77.0.2 " in kernel_asks(machine, "192.0.2.1"), "the other gateway")


def test_small_path_mtu_said_by_dhcp(machine: Cards) -> None:
    machine.lease("bound", **LEASE, mtu="1280")
    assert machine.read("/sys/class/net/eth0/mtu").strip() == "1280"
    machine.lease("renew", **LEASE)
    assert machine.read("/sys/class/net/eth0/mtu").strip() == "1500"
    for absurd in ("68", "0", "x"):
        machine.lease("renew", **LEASE, mtu=absurd)
        assert machine.read("/sys/class/net/eth0/mtu").strip() == "1500"


def test_leases_renewed_take_only_what_the_lease_gave(machine: Cards) -> None:
    machine.run("ip address add fd00::7/64 dev eth0 nodad; ip address add 192.0.2.7/24 dev eth0")
    machine.run("ip route add 198.51.100.0/24 via 192.0.2.1 dev eth0")
    machine.lease("bound", **LEASE)
    machine.lease("renew", **LEASE)
    assert machine.addresses() == ["192.0.2.7/24", "10.77.0.10/24"]
    assert "fd00::7/64" in machine.addresses(family="-6")
    machine.lease("renew", **LEASE | {"ip": "10.77.0.11", "router": "10.77.0.2", "dns": ""})
    assert machine.addresses() == ["192.0.2.7/24", "10.77.0.11/24"]
    assert [r.split()[2] for r in machine.routes() if r.startswith("default")] == ["10.77.0.2"]
    assert "nameserver" not in machine.read("/run/phase/resolv")
    machine.lease("deconfig")
    assert machine.addresses() == ["192.0.2.7/24"]
    assert machine.routes() == ["198.51.100.0/24 via 192.0.2.1 dev eth0"]
    assert "fd00::7/64" in machine.addresses(family="-6")
    assert not machine.read("/run/phase/cards/eth0/lease")


def test_name_servers_of_two_interfaces_are_kept_and_asked_through_their_own(two: Cards) -> None:
    two.lease("bound", **LEASE | {"dns": "192.0.2.53 10.77.0.3 10.77.0.4"})
    two.lease("bound", "eth1", ip="10.77.1.10", mask="24", router="10.77.1.1", dns="198.51.100.53")
    # A resolver asks three: the first of each card is among them.
    assert two.read("/run/phase/resolv").splitlines()[:3] == [
        "nameserver 192.0.2.53", "nameserver 198.51.100.53", "nameserver 10.77.0.3",
    ]  # fmt: skip
    assert "via 10.77.0.1 dev eth0" in kernel_asks(two, "192.0.2.53")
    assert "via 10.77.1.1 dev eth1" in kernel_asks(two, "198.51.100.53")
    assert "via 10.77.0.1 dev eth0" in kernel_asks(two, "203.0.113.1")
    # What makes them take turns: phase.boot.network.
    two.run(f"echo eth1 >/run/phase/first; {FILES / 'network'} names")
    assert two.read("/run/phase/resolv").splitlines()[:3] == [
        "nameserver 198.51.100.53",
        "nameserver 192.0.2.53",
        "nameserver 10.77.0.3",
    ]
    two.lease("deconfig")
    assert two.read("/run/phase/resolv").splitlines()[0] == "nameserver 198.51.100.53"
    assert "via 10.77.1.1 dev eth1" in kernel_asks(two, "203.0.113.1")


def test_an_interface_with_an_odd_name(tmp_path: Path, lan: Segment) -> None:
    name = "e*$'[x]"
    with Cards(tmp_path, {name: lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: machine.addresses(name) == ["10.77.0.10/24"], "address")


# -- what looks after the cards --------------------------------------------------------------------


def has_lease(machine: Cards, interface: str = "eth0") -> bool:
    return bool(machine.read(f"/run/phase/cards/{interface}/lease"))


def test_slow_dhcp_is_waited_for(tmp_path: Path, lan: Segment) -> None:
    """An answer after more than three seconds was never taken: a new transaction had begun."""
    lan.link("dhcp").from_machine = Faults(delay=3.3)
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: has_lease(machine), "lease", 15)


def test_slow_dhcp_that_has_offered_an_address_is_waited_for_longer(tmp_path: Path, lan: Segment) -> None:
    """The lease was on its way when the machine gave itself an address, and told of that one."""
    lan.link("dhcp").from_machine = Faults(delay=5)
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network", "6")
        machine.wait(lambda: has_lease(machine), "lease", 25)
        assert not machine.read("/run/phase/cards/eth0/link-local")


def test_no_dhcp_gives_itself_an_address_and_leaves_one_that_is_taken(tmp_path: Path, lan: Segment) -> None:
    """RFC 3927; a lease that comes after all is taken, too."""
    lan.dhcp.faults = DhcpFaults(silent=True)
    with Cards(tmp_path, {"eth0": lan}) as machine:
        mac = machine.read("/sys/class/net/eth0/address").strip()
        first = machine.run(
            f"sum=$((0x$(echo '{mac} 1' | busybox crc32))); "
            "echo 169.254.$((1 + sum % 254)).$((sum / 256 % 256))"
        ).strip()
        lan.switch.add_service(Neighbour(IPv4Address(first)), "neighbour")
        machine.start(FILES / "network", "1")
        machine.wait(lambda: machine.addresses() != [], "address")
        (address,) = machine.addresses()
        assert address.startswith("169.254.")
        assert address.endswith("/16")
        assert address != f"{first}/16"
        assert machine.read("/run/phase/cards/eth0/link-local").strip() == address.removesuffix("/16")
        assert kernel_asks(machine, "10.77.0.5").startswith("10.77.0.5 dev eth0 src 169.254.")
        machine.wait(
            lambda: f"calls itself {address[:-3]}" in machine.log.read_text(), "a line that says so"
        )
        lan.dhcp.faults = DhcpFaults()
        machine.wait(lambda: has_lease(machine), "lease")
        assert "10.77.0.10/24" in machine.addresses()
        # Neighbours of both kinds are reached on the link.
        assert kernel_asks(machine, "169.254.7.7").startswith("169.254.7.7 dev eth0")


def test_duplicate_address_is_declined_and_said(tmp_path: Path, lan: Segment) -> None:
    lan.switch.add_service(Neighbour(IPv4Address("10.77.0.10")), "neighbour")
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: has_lease(machine), "lease")
        assert machine.addresses() == ["10.77.0.11/24"]
        assert lan.dhcp.declined == {IPv4Address("10.77.0.10")}
        assert "eth0: the address that DHCP offers belongs to another machine" in machine.log.read_text()
        probes = lan.seen(lambda packet: packet.kind == ARP and packet.source == IPv4Address(0))
        assert {str(probe.destination) for probe in probes} == {"10.77.0.10", "10.77.0.11"}


def test_a_card_without_a_cable_waits_for_it(tmp_path: Path, lan: Segment, other: Segment) -> None:
    with Cards(tmp_path, {"eth0": lan, "eth1": other}) as machine:
        machine.cable("eth0", plugged=False)
        machine.start(FILES / "network")
        machine.wait(lambda: has_lease(machine, "eth1"), "the other card's lease")
        assert machine.read("/run/phase/cards/eth0/waits").strip() == "no cable"
        machine.cable("eth0", plugged=True)
        machine.wait(lambda: has_lease(machine), "lease")
        machine.cable("eth0", plugged=False)
        machine.wait(lambda: "no cable" in machine.read("/run/phase/cards/eth0/waits"), "the cable's loss")
        pid = machine.read("/run/phase/cards/eth0/pid")
        assert has_lease(machine), "a cable out for a moment takes no address"
        before = sum(packet.destination_port == 67 for packet in lan.seen(lambda packet: True))
        machine.cable("eth0", plugged=True)
        machine.wait(
            lambda: sum(p.destination_port == 67 for p in lan.seen(lambda packet: True)) > before,
            "a renewal",
        )
        assert machine.read("/run/phase/cards/eth0/pid") == pid


def test_a_server_that_refuses_once(tmp_path: Path, lan: Segment) -> None:
    lan.dhcp.faults = DhcpFaults(nak=True)
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: "refused" in machine.read("/run/phase/cards/eth0/waits"), "refusal")
        lan.dhcp.faults = DhcpFaults()
        machine.wait(lambda: has_lease(machine), "lease")


def test_a_client_that_was_killed_is_started_again(tmp_path: Path, lan: Segment) -> None:
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: has_lease(machine), "lease")
        pid = machine.read("/run/phase/cards/eth0/pid").strip()
        machine.run(f"kill -9 {pid}; rm /run/phase/cards/eth0/lease")
        machine.wait(lambda: has_lease(machine), "lease")
        assert machine.read("/run/phase/cards/eth0/pid").strip() != pid


def test_path_mtu_is_probed_for(tmp_path: Path, lan: Segment) -> None:
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        machine.wait(lambda: machine.read("/proc/sys/net/ipv4/tcp_mtu_probing").strip() == "1", "probing")


# -- IPv6 ------------------------------------------------------------------------------------------


def test_ipv6_only_takes_an_address_and_learns_name_servers(tmp_path: Path, lan: Segment) -> None:
    lan.dhcp.faults = DhcpFaults(silent=True)
    router = Advertiser()
    router.servers = (IPv6Address("fe80::1"), router.address)
    router.domains = ("example.org",)
    router.mtu = 1400
    lan.switch.add_service(router, "router6")
    with Cards(tmp_path, {"eth0": lan}) as machine:
        machine.start(FILES / "network")
        found = machine.python(
            "import time\nfrom phase.boot.network import Network\n"
            "network = Network(script=sys.argv[1])\n"
            "while not (found := network.address()): time.sleep(0.1)\n"
            "print(*found)",
            FILES / "network",
        )
        name, address = found.split()
        assert name == "eth0"
        assert IPv6Address(address) in router.prefix
        assert machine.read("/run/phase/resolv").splitlines() == [
            "nameserver fe80::1%eth0", f"nameserver {router.address}", "search example.org",
            "options timeout:2 attempts:2",
        ]  # fmt: skip
        assert machine.read("/proc/sys/net/ipv6/conf/eth0/mtu").strip() == "1400"
