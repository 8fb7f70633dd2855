"""The script that reads what the command line says of the network, against the judge of those words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase import cmdline, networds
from tests.boot.scripts import reads

_ADDRESSES = [
    "10.0.0.5",
    "0.0.0.0",
    "127.1.2.3",
    "239.0.0.1",
    "10.0.0.256",
    "10.0.0",
    "010.0.0.1",
    "[fd00::5]",
    "[::1]",
    "[::]",
    "fd00::5",
    "[ff02::1]",
    "[ff::1]",
    "[1:2:3:4:5:6:7:8]",
    "[1:2:3:4:5:6:7::]",
    "[1::2::3]",
    "[:1::2]",
    "[12345::]",
    "[::ffff:1.2.3.4]",
    "[fe80::1%eth0]",
    "",
    "[]",
    "[10.0.0.5]",
    "255.255.255.255",
    "1:2:3:4:5:6:7:8",
]
_MASKS = [
    "24",
    "0",
    "1",
    "32",
    "33",
    "64",
    "128",
    "129",
    "0024",
    "255.255.255.0",
    "255.0.255.0",
    "0.0.0.0",
    "",
    "x",
]
_CARDS = ["eth0", "", "eth0.5", "a" * 15, "a" * 16, "-a", "e/0", "dhcp", "vlan0005", "vlan4095", "vlan4094"]
_TEXT = st.text(st.sampled_from("0123456789abcdef:.[]-,=emo \"'%"), max_size=24)


@st.composite
def _addresses(draw: st.DrawFn) -> str:
    fields = [
        draw(st.sampled_from(_ADDRESSES)),
        draw(st.sampled_from(["", "10.0.0.9"])),
        draw(st.sampled_from(_ADDRESSES)),
        draw(st.sampled_from(_MASKS)),
        draw(st.sampled_from(["", "lab-7", "a_b"])),
        draw(st.sampled_from(_CARDS)),
        draw(st.sampled_from(["none", "off", "static", "", "dhcp"])),
        draw(st.sampled_from(["", "1400", "575", "9217"])),
        "more",
    ]
    return "ip=" + ":".join(fields[: draw(st.integers(1, 9))])


_WORDS = st.one_of(
    _addresses(),
    st.tuples(st.sampled_from(_CARDS), st.sampled_from(_CARDS)).map(lambda two: f"vlan={two[0]}:{two[1]}"),
    st.tuples(
        st.sampled_from(_CARDS),
        st.lists(st.sampled_from(_CARDS), max_size=9).map(",".join),
        st.sampled_from(
            ["", ":", ":mode=1", ":mode=1,,miimon=9:1500", ":mode=:", ":m=1", "::575", f":mode={'x' * 33}"]
        ),
    ).map(lambda three: f"bond={three[0]}:{three[1]}{three[2]}"),
    st.sampled_from(_ADDRESSES).map("nameserver={}".format),
    st.sampled_from(["01-52-54-00-aa-BB-cc", "52:54:00:aa:bb:cc", "01-52", "52-54-00-aa-bb-cg"]).map(
        "BOOTIF={}".format
    ),
    st.tuples(st.sampled_from(networds.NAMES), _TEXT).map("=".join),
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", []),
        ("quiet ip=dhcp", []),
        ("ip=10.0.0.5::10.0.0.1:255.255.240.0::eth0:none:1400", ["static eth0 10.0.0.5 20 10.0.0.1 1400"]),
        ("ip=10.0.0.5:::24", ["static - 10.0.0.5 24 - -"]),
        ('"ip=[fd00::5]::[fd00::1]:64::eth1:none"', ["static eth1 fd00::5 64 fd00::1 -"]),
        ("ip=eth0:dhcp ip=eth1:off", ["dhcp eth0", "off eth1"]),
        ("vlan=vlan0005:eth0", ["vlan vlan0005 eth0 5"]),
        (
            "bond=b0:eth0,eth1:mode=1:9000 nameserver=[fd00::53]",
            ["bond b0 eth0,eth1 mode=1 9000", "nameserver fd00::53"],
        ),
        ("BOOTIF=01-52-54-00-AA-BB-CC", ["bootif 52:54:00:aa:bb:cc"]),
    ],
)
def test_as_it_is_written(line: str, said: list[str]) -> None:
    assert reads("words", line).splitlines() == said


@settings(max_examples=150, deadline=None)
@given(st.lists(_WORDS, min_size=1, max_size=8))
def test_the_script_uses_what_is_judged_usable(words: list[str]) -> None:
    for word in cmdline.split(" ".join(words)):
        name, _, value = word.replace('"', "").partition("=")
        if name in networds.NAMES and value not in ("dhcp", "on", "any"):
            assert bool(reads("words", word)) == (not networds.wants(name, value)), word
