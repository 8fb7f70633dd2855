"""Which segments are answered on."""

from ipaddress import ip_interface

import pytest

from phase.discovery.interfaces import Interface
from phase.netboot import cards
from phase.netboot.errors import NetbootError

LO = Interface(1, "lo", (ip_interface("127.0.0.1/8"),), loopback=True)
ETH0 = Interface(2, "eth0", (ip_interface("192.0.2.1/24"), ip_interface("192.0.2.7/24")))
ETH1 = Interface(3, "eth1", (ip_interface("2001:db8::1/64"), ip_interface("198.51.100.1/24")))
ONLY6 = Interface(4, "eth2", (ip_interface("2001:db8::2/64"),))


def picked(names: tuple[str, ...], binds: tuple[str, ...], *found: Interface) -> list[tuple[str, str]]:
    return [(each.name, str(each.address.ip)) for each in cards.chosen(names, binds, found)]


def test_the_only_one_needs_no_name() -> None:
    assert picked((), (), LO, ETH0, ONLY6) == [("eth0", "192.0.2.1")]


def test_an_interface_has_its_first_address_or_the_one_that_is_named() -> None:
    assert picked(("eth0", "eth1"), (), LO, ETH0, ETH1) == [("eth0", "192.0.2.1"), ("eth1", "198.51.100.1")]
    assert picked((), ("192.0.2.7",), LO, ETH0, ETH1) == [("eth0", "192.0.2.7")]
    assert picked(("eth0",), ("192.0.2.1",), LO, ETH0) == [("eth0", "192.0.2.1")]


@pytest.mark.parametrize(
    ("names", "binds", "found", "said"),
    [
        ((), (), (LO, ETH0, ETH1), "several segments: eth0"),
        ((), (), (LO, ONLY6), "no interface"),
        (("lo",), (), (LO, ETH0), "the interface lo"),
        (("eth2",), (), (ETH0, ONLY6), "the interface eth2"),
        ((), ("0.0.0.0",), (ETH0,), "0.0.0.0 is no IPv4 address"),
        (("eth0",), ("192.0.2.7",), (ETH0,), "two addresses of one interface"),
    ],
)
def test_what_is_not_there_or_not_said(
    names: tuple[str, ...], binds: tuple[str, ...], found: tuple[Interface, ...], said: str
) -> None:
    with pytest.raises(NetbootError, match=said):
        picked(names, binds, *found)
