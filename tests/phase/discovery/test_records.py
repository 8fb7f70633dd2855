import pytest

from phase.discovery import MAX_PROVIDERS, Provider, discover
from phase.discovery.records import from_txt, http_url

TXT: dict[bytes, bytes | None] = {
    b"txtvers": b"1",
    b"channel": b"stable",
    b"arch": b"x86_64",
    b"version": b"7",
    b"id": b"deadbeef",
}


def read(
    changed: dict[bytes, bytes | None] | None = None, address: str = "10.0.0.9", port: int | None = 8080
) -> Provider | None:
    return from_txt({**TXT, **(changed or {})}, address, port, channel="stable", arch="x86_64")


def test_a_record() -> None:
    assert read() == Provider("http://10.0.0.9:8080", "stable", "x86_64", 7, "mdns", "deadbeef")
    without = read({b"version": None})
    assert without is not None
    assert without.version is None


@pytest.mark.parametrize(
    "changed",
    [
        {b"txtvers": b"2"},
        {b"channel": b"beta"},
        {b"arch": b"arm64"},
        {b"version": b"-1"},
        {b"version": b"9" * 16},
        {b"version": b"\xb2"},
        {b"id": b""},
        {b"id": None},
        {b"id": b"\x1b[31m"},
        {b"id": b"x" * 65},
        {b"id": "é".encode()},
        {b"extra": b"x" * 400},
        {b"k%d" % n: b"v" for n in range(12)},
    ],
)
def test_records_that_are_ignored(changed: dict[bytes, bytes | None]) -> None:
    assert read(changed) is None


@pytest.mark.parametrize("port", [None, 0, 65_536, -1])
def test_ports_that_are_none(port: int | None) -> None:
    assert read(port=port) is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "0.0.0.0",
        "224.0.0.251",
        "255.255.255.255",
        "::",
        "ff02::fb",
        "fe80::1",
        "::ffff:10.0.0.1",
        "host",
        "1.2.3",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    assert read(address=address) is None


def test_ipv6_addresses() -> None:
    found = read(address="2001:db8::1")
    assert found is not None
    assert found.url == "http://[2001:db8::1]:8080"
    # RFC 6874: the zone's percent sign is escaped.
    assert http_url("fe80::1", 80, zone="eth0") == "http://[fe80::1%25eth0]:80"


def test_given_addresses_come_first_once_and_bounded() -> None:
    urls = ["http://a", "http://b", "http://a", *(f"http://{n}" for n in range(100))]
    found = list(discover("stable", "x86_64", urls=urls, mdns=False, timeout=1))
    assert [provider.url for provider in found[:2]] == ["http://a", "http://b"]
    assert {provider.source for provider in found} == {"cmdline"}
    assert len(found) <= MAX_PROVIDERS
