import msgspec
import pytest

from phase.peer.address import MAX_HOSTS, Address
from phase.peer.errors import PeerError

KEY = "ab" * 32


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (KEY, Address(KEY)),
        (KEY.upper(), Address(KEY)),
        (f"{KEY}@192.0.2.1:4433", Address(KEY, ("192.0.2.1:4433",))),
        (f"{KEY}@192.0.2.1:4433,[2001:db8::1]:4433", Address(KEY, ("192.0.2.1:4433", "[2001:db8::1]:4433"))),
        (f"{KEY}@node.example:1", Address(KEY, ("node.example:1",))),
        (
            f"{KEY}@192.0.2.1:1,http://192.0.2.9:8080",
            Address(KEY, ("192.0.2.1:1",), ("http://192.0.2.9:8080",)),
        ),
    ],
)
def test_address_as_people_write_it(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "64 hex digits"),
        ("ab" * 31, "64 hex digits"),
        (f"{KEY}@", "no port"),
        (f"{KEY}@192.0.2.1", "no port"),
        (f"{KEY}@192.0.2.1:0", "no port"),
        (f"{KEY}@192.0.2.1:65536", "no port"),
        (f"{KEY}@192.0.2.256:1", "does not name a host"),
        (f"{KEY}@2001:db8::1:4433", "brackets"),
        (f"{KEY}@[fe80::1%eth0]:4433", "does not name a host"),
        (f"{KEY}@a b:4433", "does not name a host"),
        (f"{KEY}@ftp://192.0.2.1:1", "is not a relay"),
        (f"{KEY}@http://192.0.2.1:1/x", "is not a relay"),
        (f"{KEY}@http://u:p@192.0.2.1:1", "is not a relay"),
        (f"{KEY}@" + ",".join(["192.0.2.1:1"] * (MAX_HOSTS + 1)), "at most 16 hosts"),
    ],
)
def test_wrong_address_is_named_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(PeerError, match=said) as told:
        Address.parse(text)
    assert "KEY@HOST:PORT" in told.value.hint


def test_address_in_a_message_is_checked_as_it_is_decoded() -> None:
    good = Address(KEY, ("192.0.2.1:1",))
    assert msgspec.json.decode(msgspec.json.encode(good), type=Address) == good
    with pytest.raises(msgspec.ValidationError, match="no port"):
        msgspec.json.decode(b'{"key": "%s", "hosts": ["192.0.2.1"]}' % KEY.encode(), type=Address)
