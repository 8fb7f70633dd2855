"""The headers of a frame: Ethernet, ARP (RFC 826), IPv4 (RFC 791), UDP (RFC 768), TCP (RFC 9293), ICMP.

What is torn or absurd is left out of the answer; nothing that reads fails on any bytes.
"""

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

ARP, IPV4 = 0x0806, 0x0800
ICMP, TCP, UDP = 1, 6, 17
_PROTOCOLS = {ICMP: "ICMP", TCP: "TCP", UDP: "UDP"}
EVERYBODY = b"\xff" * 6


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

    def __str__(self) -> str:
        if self.kind == ARP:
            return f"ARP of {self.source} for {self.destination}"
        if self.destination is None:
            return f"frame of type {self.kind:#06x} to {self.to_mac.hex(':')}"
        name = _PROTOCOLS.get(self.protocol or 0, f"protocol {self.protocol}")
        ends = ((self.source, self.source_port), (self.destination, self.destination_port))
        return f"{name} " + " > ".join(f"{at}" if port is None else f"{at}:{port}" for at, port in ends)


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


def ethernet(to_mac: bytes, from_mac: bytes, kind: int, body: bytes) -> bytes:
    """A frame."""
    return to_mac + from_mac + kind.to_bytes(2, "big") + body


def arp_request(mac: bytes, address: IPv4Address, wanted: IPv4Address) -> bytes:
    """The frame that asks everybody who has an address."""
    body = b"\0\x01\x08\0\x06\x04\0\x01" + mac + address.packed + bytes(6) + wanted.packed
    return ethernet(EVERYBODY, mac, ARP, body)


def arp_reply(mac: bytes, address: IPv4Address, asked: bytes) -> bytes:
    """The frame that tells who asked for an address whose it is.

    Args:
        mac: hardware address of the one who has it.
        address: that was asked for.
        asked: the frame that asked.
    """
    body = b"\0\x01\x08\0\x06\x04\0\x02" + mac + address.packed + asked[22:32]
    return ethernet(asked[22:28], mac, ARP, body)


def ipv4(
    source: IPv4Address, destination: IPv4Address, protocol: int, body: bytes, *, ttl: int = 64
) -> bytes:
    """A datagram in one piece."""
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, ttl, protocol, 0, source.packed, destination.packed
    )
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def udp(
    source: tuple[IPv4Address, int], destination: tuple[IPv4Address, int], payload: bytes, *, ttl: int = 64
) -> bytes:
    """A datagram of UDP, without a checksum of its own."""
    body = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    return ipv4(source[0], destination[0], UDP, body, ttl=ttl)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
