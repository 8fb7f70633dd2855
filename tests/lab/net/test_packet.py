import struct
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from lab.net.packet import ARP, ICMP, TCP, UDP, arp_request, parse

MACS = b"\x52\x54\0\0\0\2" + b"\x52\x54\0\0\0\1"


def ipv4(protocol: int, inner: bytes, *, fragment: int = 0) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(inner), 0, fragment, 64, protocol, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    return MACS + b"\x08\0" + head + inner


def test_each_protocol_is_read() -> None:
    udp = parse(ipv4(UDP, struct.pack("!HHHH", 5, 53, 9, 0) + b"x"))
    assert (udp.source, udp.destination) == (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    assert (udp.protocol, udp.source_port, udp.destination_port, udp.payload) == (UDP, 5, 53, 42)
    tcp = parse(ipv4(TCP, struct.pack("!HHIIBBHHH", 5, 80, 0, 0, 0x60, 2, 0, 0, 0) + b"optsx"))
    assert (tcp.source_port, tcp.destination_port, tcp.operation, tcp.payload) == (5, 80, 2, 58)
    echo = parse(ipv4(ICMP, struct.pack("!BBHHH", 8, 0, 0, 77, 1)))
    assert (echo.protocol, echo.operation, echo.source_port) == (ICMP, 8, 77)
    arp = parse(MACS + b"\x08\x06\0\1\x08\0\6\4\0\1" + bytes(6) + b"\x0a\0\0\1" + bytes(6) + b"\x0a\0\0\2")
    assert (arp.kind, arp.operation, arp.destination) == (ARP, 1, IPv4Address("10.0.0.2"))


def test_a_later_fragment_has_no_ports() -> None:
    assert parse(ipv4(UDP, b"x" * 20, fragment=3)).source_port is None


def test_packets_are_told_to_people() -> None:
    told = [
        str(parse(ipv4(UDP, struct.pack("!HHHH", 5, 53, 9, 0) + b"x"))),
        str(parse(ipv4(ICMP, struct.pack("!BBHHH", 3, 0, 0, 77, 1)))),
        str(parse(ipv4(47, b"x" * 8))),
        str(parse(arp_request(MACS[6:], IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")))),
        str(parse(MACS + b"\x86\xdd")),
    ]
    assert told == [
        "UDP 10.0.0.1:5 > 10.0.0.2:53",
        "ICMP 10.0.0.1 > 10.0.0.2",
        "protocol 47 10.0.0.1 > 10.0.0.2",
        "ARP of 10.0.0.1 for 10.0.0.2",
        "frame of type 0x86dd to 52:54:00:00:00:02",
    ]


@given(st.binary(max_size=80), st.sampled_from([b"\x08\0\x45", b"\x08\x06\0", b"\x08\0\x4f", b""]))
def test_no_bytes_break_it(rest: bytes, kind: bytes) -> None:
    packet = parse(MACS + kind + rest)
    assert packet.payload <= 14 + 60 + 60
