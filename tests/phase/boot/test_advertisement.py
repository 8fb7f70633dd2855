"""Name servers in router advertisements; the lab's own router writes them."""

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from lab.net.advertiser import Advertiser
from phase.boot.advertisement import Told, parse

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
