"""The lab's IPv6 router, by the bytes it answers."""

import struct
from ipaddress import IPv6Address

from lab.net.advertiser import Advertiser
from lab.net.packet import checksum

MAC = b"\x52\x54\0\1\2\3"
HOST = IPv6Address("fd4c:4142::5")


def frame(protocol: int, body: bytes, source: IPv6Address, destination: IPv6Address) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
    return b"\x33\x33\0\0\0\2" + MAC + b"\x86\xdd" + head + source.packed + destination.packed + body


def body(answer: bytes) -> bytes:
    """What is behind the header; its checksum holds."""
    length = int.from_bytes(answer[18:20], "big")
    inner = answer[54 : 54 + length]
    assert len(inner) == length
    assert checksum(answer[22:54] + struct.pack("!II", length, answer[20]) + inner) == 0
    return inner


def test_a_solicitation_is_answered_to_everybody() -> None:
    router = Advertiser()
    router.mtu = 1280
    (answer,) = router(frame(58, bytes([133, *bytes(7)]), IPv6Address("fe80::5"), IPv6Address("ff02::2")))
    assert answer[:6] == b"\x33\x33\0\0\0\1"
    assert answer[21] == 255
    said = body(answer)
    assert said[0] == 134
    assert struct.unpack("!H", said[6:8]) == (1800,)
    assert router.prefix.network_address.packed in said
    assert b"\x05\x01\0\0\0\0\x05\0" in said


def test_a_prefix_for_dhcp_only_is_not_for_machines_to_take() -> None:
    router = Advertiser()
    router.managed, router.lifetime = True, 0
    said = body(router.advertisement())
    assert said[5] == 0x80
    assert said[6:8] == b"\0\0"
    assert said[said.index(b"\x03\x04\x40") + 3] == 0x80


def test_neighbours_find_it_and_a_name_server_answers() -> None:
    router = Advertiser()
    wanted = bytes([135, *bytes(7)]) + router.address.packed
    (answer,) = router(frame(58, wanted, HOST, router.address))
    assert body(answer)[8:24] == router.address.packed
    assert answer[38:54] == HOST.packed
    assert router(frame(58, bytes([135, *bytes(7)]) + HOST.packed, HOST, HOST)) == []
    router.answer = lambda message: message[::-1]
    question = struct.pack("!HHHH", 4000, 53, 11, 0) + b"abc"
    (answer,) = router(frame(17, question, HOST, router.address))
    assert body(answer)[:4] == struct.pack("!HH", 53, 4000)
    assert body(answer)[8:] == b"cba"
    assert router(frame(17, question, HOST, IPv6Address("fd4c:4142::9"))) == []


def test_short_and_foreign_frames_are_left_alone() -> None:
    whole = frame(58, bytes([133, *bytes(7)]), HOST, IPv6Address("ff02::2"))
    assert [Advertiser()(whole[:length]) for length in range(len(whole))] == [[]] * len(whole)
