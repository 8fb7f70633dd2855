"""What a proxy reads of others' messages, whom it answers, and what."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase.netboot import dhcp
from phase.netboot.dhcp import Kind, Way
from tests.firmware import HTTP, MAC, MACHINE, PXE, asked, message, option, told

SERVER = IPv4Address("192.0.2.1")


@pytest.mark.parametrize(
    ("number", "name", "arch", "way", "bios"),
    [
        (0, PXE, "x86_64", Way.PXE, True),
        (7, PXE, "x86_64", Way.PXE, False),
        (9, PXE, "x86_64", Way.PXE, False),
        (11, PXE, "arm64", Way.PXE, False),
        (16, HTTP, "x86_64", Way.HTTP, False),
        (19, HTTP, "arm64", Way.HTTP, False),
    ],
)
def test_firmware_is_known_by_its_number(number: int, name: bytes, arch: str, way: Way, bios: bool) -> None:
    question = dhcp.parse(message(asked(1, number, name)))
    assert question is not None
    assert question.firmware == (arch, way, bios)
    assert (question.way, question.kind, question.mac) == (way, Kind.DISCOVER, MAC)


@pytest.mark.parametrize("more", [option(77, b"iPXE"), option(77, b"\4iPXE"), option(175, b"\xb1\1\1")])
def test_ipxe_is_told_apart_from_the_firmware_below_it(more: bytes) -> None:
    question = dhcp.parse(message(asked(1, 0, PXE, more)))
    assert question is not None
    assert question.way is Way.IPXE


#: What every machine of a network says, none of which boots from it.
OTHERS = {
    "udhcpc": message(option(53, b"\1") + option(60, b"udhcp 1.35.0") + option(57, b"\2\x40") + b"\xff"),
    "no class": message(option(53, b"\1") + option(93, b"\0\7") + b"\xff"),
    "a class that begins alike": message(asked(1, 7, b"PXEClientele")),
    "no architecture": message(option(53, b"\1") + option(60, PXE) + b"\xff"),
    "half an architecture": message(option(53, b"\1") + option(60, PXE) + option(93, b"\7") + b"\xff"),
    "an architecture that Phase has not": message(asked(1, 6)),
    "HTTP by the class, PXE by the number": message(asked(1, 7, HTTP)),
    "PXE by the class, HTTP by the number": message(asked(1, 16, PXE)),
    "from a relay": message(asked(), relay=b"\xc0\0\2\1"),
    "an answer": b"\2" + message(asked())[1:],
    "another medium": b"\1\6" + message(asked())[2:],
    "a longer address": b"\1\1\x10" + message(asked())[3:],
    "another magic": message(asked()).replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
    "a release": message(asked(7)),
    "no kind": message(option(60, PXE) + option(93, b"\0\7") + b"\xff"),
    "a kind of two bytes": message(option(53, b"\1\1") + asked()[3:]),
    "an option that is cut short": message(asked()[:-1] + b"\x4d\xff"),
    "an option without a length": message(asked()[:-1] + b"\x4d"),
    "too short": message(b"")[:-1],
    "too long": message(asked()).ljust(dhcp.MAX_MESSAGE + 1, b"\0"),
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_nobody_else_is_answered(data: bytes) -> None:
    assert dhcp.parse(data) is None


def test_the_longest_message_is_read() -> None:
    assert dhcp.parse(message(asked()).ljust(dhcp.MAX_MESSAGE, b"\0")) is not None


def test_an_option_in_two_parts_is_one() -> None:
    parts = option(60, b"PXECl") + option(60, b"ient:Arch:00007")
    data = message(option(53, b"\1") + b"\0\0" + parts + option(93, b"\0\x06\0\7") + b"\xff")
    question = dhcp.parse(data)
    assert question is not None
    assert question.firmware.arch == "x86_64"


def test_an_offer_gives_a_file_and_no_address() -> None:
    question = dhcp.parse(message(asked()))
    assert question is not None
    answer = told(dhcp.answer(question, "x86_64/boot.efi", SERVER))
    assert answer == {
        "operation": 2,
        "transaction": 0xC0FFEE,
        "given": "0.0.0.0",
        "next": "192.0.2.1",
        "mac": MAC.hex(),
        "file": "x86_64/boot.efi",
        "kind": 2,
        "server": "192.0.2.1",
        "class": "PXEClient",
        "vendor": "",
        "machine": MACHINE.hex(),
        # No lease, no netmask, no router: nothing that a server of addresses says.
        "options": [53, 54, 60, 97],
        "length": 300,
    }


def test_a_request_is_acknowledged() -> None:
    question = dhcp.parse(message(asked(3), own=b"\xc0\0\2\x63"))
    assert question is not None
    data = dhcp.answer(question, "x86_64/boot.efi", SERVER)
    assert told(data)["kind"] == 5
    assert data[12:16] == b"\xc0\0\2\x63"


def test_http_boot_gets_a_url_of_any_length() -> None:
    question = dhcp.parse(message(asked(1, 19, HTTP)))
    assert question is not None
    url = "http://192.0.2.1:8080/" + "a" * 233
    answer = told(dhcp.answer(question, url, SERVER))
    assert (answer["file"], answer["class"]) == (url, "HTTPClient")


def test_a_bios_is_told_to_look_no_further() -> None:
    question = dhcp.parse(message(asked(1, 0)))
    assert question is not None
    assert told(dhcp.answer(question, "bios/ipxe.kpxe", SERVER))["vendor"] == "060108ff"


def test_a_machine_that_names_itself_wrongly_gets_nothing_back() -> None:
    data = message(asked()).replace(option(97, MACHINE), option(97, b"x"))
    question = dhcp.parse(data)
    assert question is not None
    options = told(dhcp.answer(question, "a", SERVER))["options"]
    assert isinstance(options, list)
    assert 97 not in options


@given(st.binary(max_size=400), st.sampled_from([b"", message(asked())[:240]]))
def test_any_bytes_are_read_or_left(data: bytes, head: bytes) -> None:
    question = dhcp.parse(head + data)
    if question is not None:
        assert told(dhcp.answer(question, "x", SERVER))["transaction"] == question.transaction
