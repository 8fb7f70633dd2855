"""Networks as they are: several cards, bridges, tunnels, late and changed addresses."""

import subprocess
import sys
import time

import pytest

from phase.release.repository import Repository
from tests.networks import Host, cable, hosts

BRIDGE = ("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")


def lan(one: Host, other: Host, *, nodad: str = "") -> None:
    """A cable between `eth0` of both: 192.0.2.1 and 192.0.2.2."""
    cable(one, "eth0", other, "eth0")
    for number, host in ((1, one), (2, other)):
        host.ip(f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")


def urls(found: list[dict[str, object]]) -> list[object]:
    return [each["url"] for each in found]


def test_the_askers_own_bridge_is_not_asked(repository: Repository, channel: str) -> None:
    """Both hosts have Docker's bridge, made before the card, with the same address."""
    with hosts(2) as (one, other):
        for host in (one, other):
            host.ip(*BRIDGE)
        lan(one, other)
        with one.advertising(repository.directory) as provider:
            told = provider.answering("docker0", "eth0")["interfaces"]
            by_name = {each["name"]: each["addresses"] for each in told}
            assert by_name["docker0"][0] == "172.17.0.1"
            assert by_name["eth0"][0] == "192.0.2.1"
            found = urls(other.discover(channel, "--timeout", "1.3"))
            assert found[0] == "http://192.0.2.1:8099"
            assert not any("172.17" in str(each) for each in found)


def test_an_interface_that_comes_late_is_told_of(repository: Repository, channel: str) -> None:
    with hosts(2) as (one, other), one.advertising(repository.directory) as provider:
        # Until then there is loopback only.
        provider.answering("lo")
        lan(one, other)
        provider.answering("eth0")
        assert "http://192.0.2.1:8099" in urls(other.discover(channel, "--timeout", "1.3"))
        one.ip("link del eth0")
        provider.answering("lo")


def test_a_changed_address_is_told_and_the_old_one_is_not(repository: Repository, channel: str) -> None:
    with hosts(2) as (one, other):
        lan(one, other)
        with one.advertising(repository.directory) as provider:
            provider.answering("eth0")
            one.ip("address del 192.0.2.1/24 dev eth0", "address add 192.0.2.77/24 dev eth0")
            provider.until(lambda told: "192.0.2.77" in told["interfaces"][0]["addresses"])
            found = urls(other.discover(channel, "--timeout", "1.3"))
            assert "http://192.0.2.77:8099" in found
            assert "http://192.0.2.1:8099" not in found


def test_a_renamed_interface_is_followed(repository: Repository) -> None:
    with hosts(2) as (one, other):
        lan(one, other)
        with one.advertising(repository.directory) as provider:
            provider.answering("eth0")
            one.ip("link set eth0 down", "link set eth0 name lan0", "link set lan0 up")
            provider.answering("lan0")


def test_ipv6_only(repository: Repository, channel: str) -> None:
    """Link-local addresses alone: found with the zone that the asker needs."""
    with hosts(2) as (one, other):
        cable(one, "eth0", other, "eth0")
        for host in (one, other):
            host.ip("link set eth0 addrgenmode none", "link set eth0 up")
        one.ip("address add fe80::1/64 dev eth0 nodad")
        other.ip("address add fe80::2/64 dev eth0 nodad")
        with one.advertising(repository.directory) as provider:
            provider.answering("eth0")
            assert urls(other.discover(channel, "--timeout", "1.3")) == ["http://[fe80::1%25eth0]:8099"]
            one.ip("address add 2001:db8:5::1/64 dev eth0 nodad")
            other.ip("address add 2001:db8:5::2/64 dev eth0 nodad")
            provider.until(lambda told: "2001:db8:5::1" in told["interfaces"][0]["addresses"])
            # What is not bound to a link comes first.
            assert urls(other.discover(channel, "--timeout", "1.3")) == [
                "http://[2001:db8:5::1]:8099",
                "http://[fe80::1%25eth0]:8099",
            ]


def test_wifi_and_cable_into_one_network(repository: Repository, channel: str) -> None:
    """Two cards of the provider on one network: its own words from the other card are not a stranger's."""
    with hosts(2) as (one, other):
        other.ip("link add lan0 type bridge", "link set lan0 up", "address add 192.0.2.9/24 dev lan0")
        for number, card in enumerate(("eth0", "wlan0"), 1):
            cable(one, card, other, f"port{number}")
            one.ip(f"address add 192.0.2.{number}/24 dev {card}", f"link set {card} up")
            other.ip(f"link set port{number} master lan0", f"link set port{number} up")
        with one.advertising(repository.directory) as provider:
            provider.answering("eth0", "wlan0")
            time.sleep(0.5)
            status = provider.status()
            assert status["problem"] == ""
            assert not any("-2." in each for each in status["instances"])
            found = urls(other.discover(channel, "--timeout", "1.3"))
            assert {"http://192.0.2.1:8099", "http://192.0.2.2:8099"} <= set(found)


def test_a_tunnel_is_not_told_on_the_lan(repository: Repository, channel: str) -> None:
    """A point-to-point link, as a VPN makes it, without multicast."""
    with hosts(2) as (one, other):
        lan(one, other)
        one.ip("tuntap add tun0 mode tun", "link set tun0 multicast off", "link set tun0 up")
        one.ip("address add 10.8.0.1 peer 10.8.0.2/32 dev tun0")
        with one.advertising(repository.directory) as provider:
            provider.answering("eth0")
            found = urls(other.discover(channel, "--timeout", "1.3"))
            assert found[0] == "http://192.0.2.1:8099"
            assert not any("10.8" in str(each) for each in found)


@pytest.mark.parametrize(
    ("bind", "wanted"),
    [
        ("192.0.2.1", ["http://192.0.2.1:8099"]),
        ("fe80::1%eth0", ["http://[fe80::1%25eth0]:8099"]),
        ("0.0.0.0", ["http://192.0.2.1:8099"]),
    ],
)
def test_what_is_bound_is_told(repository: Repository, channel: str, bind: str, wanted: list[str]) -> None:
    with hosts(2) as (one, other):
        for host in (one, other):
            host.ip(*BRIDGE)
        cable(one, "eth0", other, "eth0")
        for number, host in ((1, one), (2, other)):
            host.ip("link set eth0 addrgenmode none", "link set eth0 up")
            host.ip(f"address add 192.0.2.{number}/24 dev eth0")
            host.ip(f"address add fe80::{number}/64 dev eth0 nodad")
        with one.advertising(repository.directory, bind) as provider:
            provider.until(lambda told: told["problem"] == "")
            assert urls(other.discover(channel, "--timeout", "1.3")) == wanted


def test_an_address_that_is_bound_and_comes_late(repository: Repository, channel: str) -> None:
    with hosts(2) as (one, other), one.advertising(repository.directory, "192.0.2.1") as provider:
        assert provider.until(lambda told: told["problem"] != "starting")["problem"]
        lan(one, other)
        provider.answering("eth0")
        assert urls(other.discover(channel, "--timeout", "1.3")) == ["http://192.0.2.1:8099"]


def test_no_network_is_said(channel: str) -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", "phase"]
    command += ["discover", "--channel", channel, "--timeout", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this machine has no network address" in done.stderr
    assert "Traceback" not in done.stderr
