"""What the scripts of the network cards leave undone in local and in private mode."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from lab.net.advertiser import Advertiser
from lab.net.dhcp import DhcpFaults
from lab.net.packet import parse
from lab.net.segment import Segment
from tests.boot.cards import FILES, Cards

LONELY = ["local", "private"]
LEASE = {"ip": "10.77.0.10", "mask": "24", "router": "10.77.0.1", "dns": "10.77.0.3"}


@pytest.fixture
def machine(tmp_path: Path, lan: Segment) -> Iterator[Cards]:
    with Cards(tmp_path, {"eth0": lan}) as made:
        yield made


def choose(machine: Cards, mode: str) -> None:
    machine.run(f"echo {mode} >/run/phase/mode")


@pytest.mark.parametrize("mode", LONELY)
@pytest.mark.parametrize("told", [{}, {"staticroutes": "0.0.0.0/0 10.77.0.9 172.16.0.0/12 10.77.0.8"}])
def test_a_lease_gives_an_address_and_no_way_out(machine: Cards, mode: str, told: dict[str, str]) -> None:
    choose(machine, mode)
    machine.run("ip link set eth0 up")
    machine.lease("bound", **LEASE, **told, domain="example.org")
    assert machine.addresses() == ["10.77.0.10/24"]
    assert not [route for route in machine.routes() if " via " in route or "default" in route]
    machine.run("! ip route get 192.0.2.1")
    resolv = machine.read("/run/phase/resolv")
    assert "nameserver" not in resolv
    assert "search" not in resolv


@pytest.mark.parametrize("mode", LONELY)
def test_no_lease_makes_half_the_world_a_neighbour(machine: Cards, mode: str) -> None:
    choose(machine, mode)
    machine.run("ip link set eth0 up")
    machine.lease("bound", ip="200.0.0.9", mask="1", router="200.0.0.1")
    assert machine.addresses() == ["200.0.0.9/8"]
    machine.run("! ip route get 192.0.2.1")


@pytest.mark.parametrize("mode", LONELY)
def test_nobody_is_a_router(machine: Cards, lan: Segment, mode: str) -> None:
    """Neither one that advertises itself by IPv6, nor everybody on a cable without a DHCP server."""
    choose(machine, mode)
    router = Advertiser()
    router.servers = (router.address,)
    lan.switch.add_service(router, "router6")
    lan.dhcp.faults = DhcpFaults(silent=True)
    machine.start(FILES / "network", "1")
    machine.wait(lambda: bool(machine.read("/run/phase/cards/eth0/link-local")), "an address of its own")
    machine.wait(lambda: len(machine.addresses(family="-6")) > 1, "an IPv6 address")
    assert "default" not in machine.run("ip -6 route; ip -4 route")
    assert "nameserver" not in machine.read("/run/phase/resolv")


@pytest.mark.parametrize("mode", [*LONELY, "internet"])
def test_no_prefix_makes_half_the_world_a_neighbour(machine: Cards, lan: Segment, mode: str) -> None:
    """Whoever answers for its addresses would be a way out."""
    choose(machine, mode)
    lan.switch.add_service(Advertiser(IPv6Network("2000::/3")), "wide")
    machine.start(FILES / "network")
    machine.wait(lambda: "2000::/3" in machine.run("ip -6 route"), "the prefix")
    way = machine.run("ip -6 route get 2001:db8::1 2>&1 || true")
    assert ("dev eth0" in way) == (mode == "internet"), way
    machine.run("ip -6 route add fd00::/32 dev eth0; ip -6 route get fd00::1")


@pytest.mark.parametrize("written", ["rm", "truncate -s 0"])
def test_without_a_word_the_mode_is_private(machine: Cards, written: str) -> None:
    machine.run(f"{written} /run/phase/mode")
    machine.start(FILES / "network")
    machine.wait(lambda: bool(machine.read("/run/phase/cards/eth0/lease")), "a lease")
    assert machine.read("/sys/class/net/eth0/address").startswith("02:")
    assert "nameserver" not in machine.read("/run/phase/resolv")
    machine.lease("bound", **LEASE)
    assert not [route for route in machine.routes() if " via " in route]
    assert " via 10.77.0.1 " in machine.run("ip route show table 107")


def test_in_private_mode_no_packet_has_the_cards_own_address(machine: Cards, lan: Segment) -> None:
    choose(machine, "private")
    own = bytes.fromhex(machine.read("/sys/class/net/eth0/address").strip().replace(":", ""))
    machine.start(FILES / "network")
    machine.wait(lambda: bool(machine.read("/run/phase/cards/eth0/lease")), "a lease")
    sent = [parse(each.frame) for each in lan.traffic() if each.direction == "inbound"]
    servers = {lan.dhcp.mac}
    senders = {packet.from_mac for packet in sent} - servers
    assert senders
    assert own not in senders
    assert {sender[0] for sender in senders} == {2}
    for answers in ("ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"):
        assert machine.read(f"/proc/sys/net/{answers}").strip() == "1"


def hidden(place: Path, own: list[str]) -> list[str]:
    """The hardware addresses that the cards of a machine have in one boot in private mode.

    Args:
        place: a directory for it, which is made.
        own: the addresses of the cards themselves.
    """
    place.mkdir()
    with ExitStack() as stack:
        lans = {f"eth{number}": Segment(f"lan{number}", place, number) for number in range(len(own))}
        for lan in lans.values():
            stack.callback(lan.switch.close)
        machine = stack.enter_context(Cards(place, lans))
        for name, address in zip(lans, own, strict=True):
            machine.run(f"ip link set dev {name} address {address}")
        choose(machine, "private")
        machine.start(FILES / "network")
        leases = "cat /run/phase/cards/*/lease 2>/dev/null | wc -l"
        machine.wait(lambda: machine.run(leases).strip() == str(len(own)), "a lease for each card")
        return [machine.read(f"/sys/class/net/{name}/address").strip() for name in lans]


def test_in_private_mode_each_card_of_each_boot_has_another_address(tmp_path: Path) -> None:
    own = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    found = [address for boot in ("first", "second") for address in hidden(tmp_path / boot, own)]
    assert len({*own, *found}) == 6


def test_in_private_mode_a_card_that_cannot_hide_stays_down(machine: Cards, lan: Segment) -> None:
    choose(machine, "private")
    # As a card whose driver does not let its address be set.
    machine.run("printf '#!/bin/sh\\nexit 1\\n' >/run/ip; chmod 755 /run/ip")
    script = machine.run(f"sed 's#ip link set dev \"$name\" address#true \\&\\& /run/ip#' {FILES}/network")
    machine.run(f"cat >/run/network <<'END'\n{script}\nEND")
    machine.start("/bin/busybox", "sh", "/run/network")
    machine.wait(lambda: "cannot be hidden" in machine.log.read_text(), "a word of it")
    assert machine.read("/sys/class/net/eth0/operstate").strip() == "down"


def test_in_private_mode_the_way_out_is_for_tors_user_alone(machine: Cards) -> None:
    choose(machine, "private")
    machine.run("ip link set eth0 up")
    machine.lease("bound", **LEASE)
    # Of users, this machine knows but one.
    machine.python("from phase.boot import tor\ntor.USER = 0\ntor._route_alone()\ntor._route_alone()")
    assert "from all uidrange 0-0 lookup 107" in machine.run("ip rule")
    assert " via 10.77.0.1 dev eth0 table 107 " in machine.run("ip route get 192.0.2.1")
    # What was given is taken away again.
    machine.lease("deconfig")
    assert machine.run("ip route show table 107 2>&1 || true").strip() in ("", _NO_TABLE)


#: Of a table without a route.
_NO_TABLE = "Error: ipv4: FIB table does not exist.\nDump terminated"
