"""The headers of a frame: Ethernet, ARP (RFC 826), IPv4 (RFC 791), UDP (RFC 768), TCP (RFC 9293), ICMP.

What is torn or absurd is left out of the answer; nothing here fails on any bytes.
"""

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

ARP, IPV4 = 0x0806, 0x0800
ICMP, TCP, UDP = 1, 6, 17


class Packet(NamedTuple):
    """What a frame says of itself; None for what it does not say.

    Attributes:
        to_mac: hardware address of the receiver.
        from_mac: and of the sender.
        kind: the EtherType.
        source: IPv4 address; in ARP the sender's.
        destination: IPv4 address; in ARP the one asked for.
        protocol: of IPv4, such as `UDP`.
        source_port: of UDP and TCP; the identifier of an ICMP echo.
        destination_port: the same.
        operation: of ARP, the type of ICMP, the flags of TCP.
        payload: where what is inside of UDP, TCP and ICMP starts in the frame.
        end: where the IPv4 packet ends in the frame; what is behind is padding.
    """

    to_mac: bytes
    from_mac: bytes
    kind: int
    source: IPv4Address | None = None
    destination: IPv4Address | None = None
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    operation: int | None = None
    payload: int = 0
    end: int = 0


def parse(frame: bytes) -> Packet:
    """Read a frame's headers; the frame may be cut."""
    kind = int.from_bytes(frame[12:14], "big")
    packet = Packet(frame[:6], frame[6:12], kind)
    if kind == ARP and len(frame) >= 42 and frame[14:20] == b"\0\1\x08\0\6\4":
        return packet._replace(
            source=IPv4Address(frame[28:32]),
            destination=IPv4Address(frame[38:42]),
            operation=int.from_bytes(frame[20:22], "big"),
        )
    header = (frame[14] & 15) * 4 if len(frame) >= 34 else 0
    if kind != IPV4 or header < 20 or frame[14] >> 4 != 4 or len(frame) < 14 + header:
        return packet
    length = int.from_bytes(frame[16:18], "big")
    if length < header:
        return packet
    packet = packet._replace(
        source=IPv4Address(frame[26:30]),
        destination=IPv4Address(frame[30:34]),
        protocol=frame[23],
        end=14 + length,
    )
    inner = 14 + header
    # The later fragments have no ports.
    if int.from_bytes(frame[20:22], "big") & 0x1FFF or min(len(frame), packet.end) < inner + 8:
        return packet
    if frame[23] == ICMP:
        number = int.from_bytes(frame[inner + 4 : inner + 6], "big")
        echo = number if frame[inner] in (0, 8) else None
        return packet._replace(
            source_port=echo, destination_port=echo, operation=frame[inner], payload=inner + 8
        )
    if frame[23] not in (TCP, UDP):
        return packet
    source, destination = struct.unpack_from("!HH", frame, inner)
    if frame[23] == UDP:
        return packet._replace(source_port=source, destination_port=destination, payload=inner + 8)
    if min(len(frame), packet.end) < inner + 20 or frame[inner + 12] >> 4 < 5:
        return packet
    return packet._replace(
        source_port=source,
        destination_port=destination,
        operation=frame[inner + 13],
        payload=inner + (frame[inner + 12] >> 4) * 4,
    )
