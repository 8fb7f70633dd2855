"""What the kernel says of its interfaces, and which of it is used."""

import errno
import ipaddress
import socket
import struct
from typing import cast

import pytest

from phase.discovery import interfaces as here
from phase.discovery import netlink
from phase.discovery.interfaces import Interface, interfaces, source, speaking
from phase.discovery.netlink import Address, Link
from phase.discovery.records import DiscoveryError

UP = 0x1 | 0x40 | 0x1000
LOOPBACK = 0x1 | 0x8


def told(monkeypatch: pytest.MonkeyPatch, links: list[Link], addresses: list[Address]) -> list[Interface]:
    """What is made of this."""
    monkeypatch.setattr(netlink, "dump", lambda: (links, addresses))
    return interfaces()


def at(number: int, text: str, flags: int = 0, prefix: int = 24) -> Address:
    return Address(number, ipaddress.ip_address(text).packed, prefix, flags)


def test_those_in_use_have_a_carrier_and_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [
        Link(1, "lo", LOOPBACK, 0),
        Link(2, "eth0", UP, 0),
        Link(3, "no-carrier", 0x1 | 0x1000, 0),
        Link(4, "down", 0x40 | 0x1000, 0),
        Link(5, "no-address", UP, 0),
        Link(6, "tunnel", 0x1 | 0x40 | 0x10, 0),
    ]
    addresses = [at(1, "127.0.0.1", prefix=8), *(at(n, f"192.0.2.{n}") for n in (2, 3, 4, 6))]
    found = told(monkeypatch, links, addresses)
    assert [(one.name, one.multicast, one.loopback) for one in found] == [
        ("lo", True, True),
        ("eth0", True, False),
        ("tunnel", False, False),
    ]
    assert [one.number for one in found] == [1, 2, 6]
    assert found[1].addresses == (ipaddress.IPv4Interface("192.0.2.2/24"),)
    assert [one.name for one in speaking(found)] == ["eth0"]
    assert [one.name for one in speaking(found[:1])] == ["lo"]


@pytest.mark.parametrize(("flags", "kept"), [(0x40, False), (0x08, False), (0x80, True), (0, True)])
def test_an_address_that_is_not_ours_yet_is_not_used(
    monkeypatch: pytest.MonkeyPatch, flags: int, kept: bool
) -> None:
    found = told(monkeypatch, [Link(2, "eth0", UP, 0)], [at(2, "2001:db8::1", flags, 64)])
    assert bool(found) is kept


@pytest.mark.parametrize("flags", [0x20, 0x01])
def test_the_best_address_comes_first(monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    addresses = [at(2, "2001:db8::1", flags, 64), at(2, "2001:db8::2", 0x80, 64)]
    (found,) = told(monkeypatch, [Link(2, "eth0", UP, 0)], addresses)
    assert [str(one.ip) for one in found.addresses] == ["2001:db8::2", "2001:db8::1"]


def test_a_port_of_a_bridge_is_left_to_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [Link(2, "port", UP, 3), Link(3, "br0", UP, 0), Link(4, "vrf-port", UP, 3)]
    addresses = [at(2, "fe80::2", prefix=64), at(3, "fe80::3", prefix=64), at(4, "192.0.2.4")]
    assert [one.name for one in told(monkeypatch, links, addresses)] == ["br0", "vrf-port"]


def test_there_are_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [Link(n, f"eth{n}", UP, 0) for n in range(100)]
    addresses = [at(n, f"10.0.{n}.{m}") for n in range(100) for m in range(1, 30)]
    found = told(monkeypatch, links, addresses)
    assert len(found) == here.MAX_INTERFACES
    assert {len(one.addresses) for one in found} == {here.MAX_ADDRESSES}
    # A prefix that no address can have.
    (odd,) = told(monkeypatch, links[:1], [at(0, "10.0.0.1", prefix=99)])
    assert odd.addresses[0].network.prefixlen == 32


def test_zones_links_and_versions() -> None:
    one = Interface(7, "eth0", (ipaddress.ip_interface("192.0.2.7/24"),))
    assert one.zone == "eth0"
    assert one._replace(name="a b").zone == "7"
    assert one._replace(name="x" * 16).zone == "7"
    assert one.has(4)
    assert not one.has(6)
    assert one.on_link(ipaddress.ip_address("192.0.2.200"))
    assert not one.on_link(ipaddress.ip_address("192.0.3.200"))
    assert one.on_link(ipaddress.ip_address("fe80::1"))
    assert not one.on_link(ipaddress.ip_address("2001:db8::1"))
    assert not one.on_link(ipaddress.ip_address("169.254.1.1"))


def test_without_netlink_the_c_library_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that allows no such socket."""

    def refused() -> None:
        raise OSError(errno.EAFNOSUPPORT, "no")

    monkeypatch.setattr(netlink, "dump", refused)
    pytest.importorskip("ifaddr")
    number = socket.if_nametoindex("lo")
    assert [(one.name, one.number) for one in interfaces() if one.loopback and one.has(4)] == [
        ("lo", number)
    ]
    monkeypatch.setattr("ifaddr.get_adapters", refused)
    with pytest.raises(DiscoveryError, match="does not list its network interfaces") as caught:
        interfaces()
    assert "AF_NETLINK" in caught.value.hint


def test_an_own_address_is_found_without_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(socket.socket):
        def connect(self, address: object) -> None:
            raise OSError(errno.ENETUNREACH, "no way")

    monkeypatch.setattr(socket, "socket", Nowhere)
    lo = Interface(1, "lo", (ipaddress.ip_interface("127.0.0.1/8"),), loopback=True)
    six = Interface(2, "a", (ipaddress.ip_interface("fe80::2/64"), ipaddress.ip_interface("2001:db8::2/64")))
    four = Interface(3, "b", (ipaddress.ip_interface("192.0.2.3/24"),))
    monkeypatch.setattr(here, "interfaces", lambda: [lo, six, four])
    assert source() == "192.0.2.3"
    assert source(6) == "2001:db8::2"
    monkeypatch.setattr(here, "interfaces", lambda: [lo])
    assert source() == "127.0.0.1"
    assert source(6) == ""


class Kernel:
    """Answers of a kernel, in its place."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def sendto(self, data: bytes, to: object) -> None:
        self.asked.append(data)

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    head = struct.pack("=IHHII", 16 + len(body) if length is None else length, kind, 0, 0, 0)
    return head + body + bytes(-len(body) % 4)


DONE = message(3, b"")


def asked(*answers: bytes) -> list[tuple[int, bytes]]:
    return list(netlink._ask(cast("socket.socket", Kernel(*answers)), 18))


def test_messages_come_many_at_a_time_and_padded() -> None:
    assert asked(message(16, b"12345") + message(16, b"6"), message(20, b"") + DONE) == [
        (16, b"12345"),
        (16, b"6"),
        (20, b""),
    ]
    kernel = Kernel(DONE)
    assert list(netlink._ask(cast("socket.socket", kernel), 22)) == []
    length, kind, flags = struct.unpack_from("=IHH", kernel.asked[0])
    assert (length, kind, flags) == (len(kernel.asked[0]), 22, 0x1 | 0x300)


@pytest.mark.parametrize("length", [15, 0, 21])
def test_a_length_that_cannot_be_ends_it(length: int) -> None:
    assert asked(message(16, b"1234") + message(16, b"5678", length)) == [(16, b"1234")]


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(OSError, match="does not list") as caught:
        asked(message(2, struct.pack("=i", -errno.EPERM)))
    assert caught.value.errno == errno.EPERM


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def test_links_and_addresses_are_read() -> None:
    head = struct.pack("=BxHiII", 0, 1, 7, 0x1043, 0)
    body = head + attribute(3, b"eth0\0") + attribute(10, struct.pack("=I", 9))
    assert netlink._link(body) == Link(7, "eth0", 0x1043, 9)
    assert netlink._link(head + attribute(3, b"\xff\0") + attribute(10, b"1")) == Link(
        7, "\ufffd", 0x1043, 0
    )
    # What is cut off in the middle ends the list.
    assert netlink._link(head + struct.pack("=HH", 3, 3) + attribute(3, b"x")).name == ""
    own = struct.pack("=BBBBI", 2, 24, 0x80, 0, 7)
    other, mine = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    assert netlink._address(own + attribute(1, other)) == Address(7, other, 24, 0x80)
    assert netlink._address(own + attribute(1, other) + attribute(2, mine)).packed == mine
    assert (
        netlink._address(own + attribute(1, other) + attribute(8, struct.pack("=I", 0x140))).flags == 0x140
    )
    assert netlink._address(own).packed == b""


def test_the_kernel_of_this_machine() -> None:
    """It has loopback, whatever else."""
    links, addresses = netlink.dump()
    (lo,) = [one for one in links if one.name == "lo"]
    assert lo.flags & LOOPBACK
    assert bytes([127, 0, 0, 1]) in [one.packed for one in addresses if one.number == lo.number]
    assert {len(one.packed) for one in addresses} <= {4, 16}
    netlink.watch().close()


def test_changes_are_read_away() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with near, far:
        assert not netlink.drain(near)
        far.send(b"1")
        far.send(b"2")
        assert netlink.drain(near)
        assert not netlink.drain(near)
