"""Name servers in router advertisements; the lab's own router writes them."""

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.net.advertiser import Advertiser
from phase.boot.advertisement import Told, ask, parse
from tests.networks import alone

SERVERS = (IPv6Address("2001:db8::53"), IPv6Address("fe80::53"))


def message(
    servers: tuple[IPv6Address, ...] = SERVERS, domains: tuple[str, ...] = ("example.org",)
) -> bytes:
    router = Advertiser()
    router.servers, router.domains, router.mtu = servers, domains, 1400
    return router.advertisement()[54:]


def test_servers_and_domains_are_read() -> None:
    told = parse(message(domains=("example.org", "lab.example.org")))
    assert told == Told(("2001:db8::53", "fe80::53"), ("example.org", "lab.example.org"))
    assert told.lines("eth0") == [
        "nameserver 2001:db8::53", "nameserver fe80::53%eth0",
        "search example.org", "search lab.example.org",
    ]  # fmt: skip


def test_without_them_nothing_is_told() -> None:
    assert parse(message((), ())) == Told()


def test_servers_for_no_time_do_not_count() -> None:
    data = message()
    at = data.index(b"\x19\x05") + 4
    assert parse(data[:at] + bytes(4) + data[at + 4 :]).servers == ()


def test_they_are_bounded() -> None:
    many = tuple(IPv6Address(f"2001:db8::{number:x}") for number in range(1, 60))
    assert len(parse(message(many)).servers) == 3
    assert len(parse(message(domains=tuple(f"d{number}.example" for number in range(90)))).domains) == 6


def test_a_domain_holds_nothing_that_a_file_of_lines_has_a_meaning_for() -> None:
    good = message()
    assert parse(good.replace(b"example", b"exa\nple")).domains == ()
    assert parse(good.replace(b"example", b"exa ple")).domains == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    told = parse(b"\x86" + data)
    assert all(name.isascii() and "\n" not in name for name in told.domains)
    assert len(told.lines("eth0")) <= 9


@given(st.integers(0, 200))
def test_what_is_torn_is_left_out(length: int) -> None:
    assert len(parse(message()[:length]).servers) <= 2


@contextlib.contextmanager
def router(card: str, answer: bytes, hops: int = 255, source: str = "") -> Iterator[None]:
    """Whoever is at the other end of a cable, and answers what all routers are asked."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as link:
        number = socket.if_nametoindex(card)
        group = socket.inet_pton(socket.AF_INET6, "ff02::2") + struct.pack("@I", number)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
        if source:
            link.bind((source, 0, 0, number))
        link.settimeout(20)

        def serve() -> None:
            while True:
                data, (_, _, _, scope) = link.recvfrom(1500)
                if data == b"end":
                    return
                if scope == number and data[0] == 133:
                    # Without name servers first, as some routers do.
                    for each in (message((), ()), answer):
                        link.sendto(each, ("ff02::1", 0, 0, number))
                    return

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(20)


def cables(*names: str) -> None:
    """Cards with addresses of their links, and what is at the other ends of their cables: `NAME-far`."""
    lines = []
    for number, name in enumerate(names):
        lines += [f"link add {name} type veth peer name {name}-far"]
        for end, card in enumerate((name, f"{name}-far")):
            lines += [
                f"link set {card} addrgenmode none",
                f"addr add fe80::{number}:{end + 1}/64 dev {card} nodad",
                f"link set {card} up",
            ]
    lines += [f"addr add 2001:db8::2/64 dev {names[0]}-far nodad"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def test_the_routers_of_each_card_are_asked() -> None:
    def work() -> dict[str, Told]:
        cables("card0", "card1")
        with router("card0-far", message()), router("card1-far", message(SERVERS[:1], ())):
            return ask(["card0", "absent", "card1"], seconds=20)

    assert alone(work) == {
        "card0": Told(("2001:db8::53", "fe80::53"), ("example.org",)),
        "card1": Told(("2001:db8::53",)),
    }


@pytest.mark.parametrize(
    ("hops", "source", "servers"),
    [(64, "", SERVERS), (255, "2001:db8::2", SERVERS), (255, "", ())],
    ids=["through a router", "not of the link", "no servers"],
)
def test_what_comes_from_no_router_of_the_link_does_not_count(
    hops: int, source: str, servers: tuple[IPv6Address, ...]
) -> None:
    def work() -> dict[str, Told]:
        cables("card0")
        with router("card0-far", message(servers), hops, source):
            return ask(["card0"], seconds=0.5)

    assert alone(work) == {}


def test_names_are_as_long_as_names_may_be_and_no_longer() -> None:
    label = "a" * 63
    longest = f"{label}.{label}.{label}.{'b' * 61}"
    assert parse(message(domains=(longest,))).domains == (longest,)
    assert parse(message(domains=(f"{longest}b",))).domains == ()
    assert parse(message(domains=("a-b_c.example", "d.example"))).domains == ("a-b_c.example", "d.example")
