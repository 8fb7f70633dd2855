"""Addresses as people write them."""

import pytest

from phase.discovery.named import named
from phase.discovery.records import DiscoveryError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://host:1", "http://host:1"),
        ("http://host", "http://host"),
        ("host", "http://host:8080"),
        ("HTTP:/host:65535/", "http://host:65535"),
        (' "host.example./a/b//%20" ', "http://host.example.:8080/a/b"),
        ("%20192.0.2.1:80", "http://192.0.2.1:80"),
        ("[2001:db8::1]", "http://[2001:db8::1]:8080"),
        ("http://[2001:db8::1]:81/x", "http://[2001:db8::1]:81/x"),
        ("http://[fe80::1%eth0]", "http://[fe80::1%eth0]"),
        ("2001:db8::1", "http://[2001:db8::1]:8080"),
        ("2001:db8:0:0:0:0:0:1:8081", "http://[2001:db8:0:0:0:0:0:1]:8081"),
        ("h" * 63, f"http://{'h' * 63}:8080"),
    ],
)
def test_an_address_is_made_whole(text: str, address: str) -> None:
    assert named(text) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not an address"),
        ("höst", "not an address"),
        ("https://host", "does not fetch by https"),
        ("host/a b", "no address has"),
        ("host:0", "no port"),
        ("host:65536", "no port"),
        ("host:000001", "no port"),
        ("host:+1", "no port"),
        ("[2001:db8::1", "in its brackets"),
        ("[host]", "in its brackets"),
        ("[2001:db8::1]x", "in its brackets"),
        ("[fe80::1%]", "in its brackets"),
        ("2001:db8::1:8080", "may be a port"),
        ("1:2:3", "not an address"),
        ("192.0.2", "not an IPv4 address"),
        ("-host", "does not name a host"),
        ("h" * 64, "does not name a host"),
        (".".join(["h" * 62] * 4) + ".hh", "does not name a host"),
        ("host/" + "p" * 600, "has 6.. characters; the limit is"),
    ],
)
def test_what_is_not_an_address_is_refused_by_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(DiscoveryError, match=words):
        named(text)
