"""What is believed to be an announcement, and what is not."""

import msgspec
import pytest

from phase import dsse
from phase.discovery.dht import announcement
from phase.discovery.dht.announcement import LIFETIME, MAX_BYTES, PAYLOAD_TYPE, AnnouncementError, read
from phase.identity import Identity

NODE = Identity.from_seed(b"\1" * 32)
NOW = 1_800_000_000.0
PLACE = announcement.key("stable", "x86_64")


def sign(**changed: object) -> bytes:
    """An envelope whose body has this changed, truly signed."""
    body = {
        "channel": "stable",
        "arch": "x86_64",
        "host": "192.0.2.7",
        "port": 8080,
        "version": 3,
        "seq": 5,
        "expires": int(NOW) + LIFETIME,
        **changed,
    }
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(body), [NODE])


def test_what_is_signed_is_read() -> None:
    made = announcement.sign(
        NODE, channel="stable", arch="x86_64", host="192.0.2.7", port=8080, version=3, now=NOW
    )
    said = read(made, place=PLACE, now=NOW)
    assert (said.url, said.version, said.key) == ("http://192.0.2.7:8080", 3, NODE.public_key)
    assert said.expires == NOW + LIFETIME
    # Sixteen of them, with the nearest nodes, are under 8 KiB.
    assert len(made) < 500


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"expires": int(NOW)}, "expired"),
        ({"channel": "testing"}, "in another's place"),
        ({"arch": "arm64"}, "in another's place"),
        ({"channel": "\x1b[2J"}, "not an announcement"),
        ({"channel": "stable\n"}, "not an announcement"),
        ({"host": "224.0.0.1"}, "not an IPv4 address of a host"),
        ({"host": "0.0.0.0"}, "not an IPv4 address of a host"),
        ({"host": "255.255.255.255"}, "not an IPv4 address of a host"),
        ({"host": "example.org"}, "not an IPv4 address of a host"),
        ({"host": "::1"}, "not an IPv4 address of a host"),
        ({"port": 0}, "not an announcement"),
        ({"port": 65_536}, "not an announcement"),
        ({"version": -1}, "not an announcement"),
        ({"seq": "5"}, "not an announcement"),
        ({"expires": 1e300}, "not an announcement"),
        ({"more": "x" * MAX_BYTES}, "the limit is"),
    ],
)
def test_what_is_signed_and_makes_no_sense_is_refused(changed: dict[str, object], why: str) -> None:
    with pytest.raises(AnnouncementError, match=why):
        read(sign(**changed), place=PLACE, now=NOW)


def test_the_key_is_who_signed_whatever_the_text_says() -> None:
    assert read(sign(key="0" * 64), place=PLACE, now=NOW).key == NODE.public_key


def test_what_somebody_else_signed_is_refused() -> None:
    other = Identity.from_seed(b"\2" * 32)
    opened = msgspec.json.decode(sign())
    body = msgspec.json.encode({"x": 1})
    envelopes: list[object] = [
        {**opened, "signatures": []},
        {**opened, "signatures": [{**opened["signatures"][0], "keyid": other.public_key}]},
        {**opened, "signatures": opened["signatures"] * 2},
        {**opened, "signatures": [{**opened["signatures"][0], "keyid": ""}]},
        {**opened, "payload": msgspec.json.decode(dsse.sign(PAYLOAD_TYPE, body, [NODE]))["payload"]},
        {**opened, "payloadType": "text/plain"},
        {},
        [],
    ]
    for envelope in envelopes:
        with pytest.raises(AnnouncementError):
            read(msgspec.json.encode(envelope), place=PLACE, now=NOW)
    with pytest.raises(AnnouncementError):
        read(b"\xff" * 40, place=PLACE, now=NOW)
