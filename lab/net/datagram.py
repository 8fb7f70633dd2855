"""What a router does to IPv4 datagrams (RFC 791, RFC 1812): flows, hops, fragments, ICMP errors.

A datagram here is its bytes, header first, without Ethernet. Functions take one and return another.
"""

import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from lab.net.packet import ICMP, TCP, UDP, checksum, ipv4

#: Seconds that a flow is remembered after its last packet (RFC 4787, RFC 5382, RFC 5508).
TIMEOUTS = {UDP: 120.0, TCP: 7440.0, ICMP: 60.0}
ECHO_REPLY, UNREACHABLE, ECHO, EXCEEDED = 0, 3, 8, 11
NO_NETWORK, NO_HOST, NO_PORT, TOO_LONG, PROHIBITED = 0, 1, 3, 4, 13
_ERRORS = (UNREACHABLE, 4, 5, EXCEEDED, 12)
_CHECKSUM = {ICMP: 2, UDP: 6, TCP: 16}
_OFFSET, _MORE, _WHOLE = 0x1FFF, 0x2000, 0x4000
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
#: Of the datagram in question, an ICMP error carries so many bytes (RFC 1812, 4.3.2.3).
_QUOTED = 548
#: Bounds and patience of reassembly.
_DATAGRAMS, _PIECES, _PATIENCE = 32, 128, 30.0
_LONGEST = 65_535

Clock = Callable[[], float]


class Flow(NamedTuple):
    """Whose packet to whom. An ICMP echo has its identifier in both ports."""

    protocol: int
    source: IPv4Address
    source_port: int
    destination: IPv4Address
    destination_port: int

    def back(self) -> "Flow":
        """The flow of the answers."""
        return Flow(self.protocol, self.destination, self.destination_port, self.source, self.source_port)


def checked(frame: bytes) -> bytes | None:
    """The datagram in a frame, without padding; None when there is none, or its header is broken."""
    if frame[12:14] != b"\x08\0" or len(frame) < 34 or frame[14] >> 4 != 4:
        return None
    header, length = (frame[14] & 15) * 4, int.from_bytes(frame[16:18], "big")
    if header < 20 or not header <= length <= len(frame) - 14 or checksum(frame[14 : 14 + header]):
        return None
    return frame[14 : 14 + length]


def addresses(datagram: bytes) -> tuple[IPv4Address, IPv4Address]:
    """Source and destination."""
    return IPv4Address(datagram[12:16]), IPv4Address(datagram[16:20])


def is_fragment(datagram: bytes) -> bool:
    """Whether it is a part of one."""
    return bool(int.from_bytes(datagram[6:8], "big") & (_MORE | _OFFSET))


def is_whole(datagram: bytes) -> bool:
    """Whether its sender forbids to divide it."""
    return bool(int.from_bytes(datagram[6:8], "big") & _WHOLE)


def icmp_type(datagram: bytes) -> int | None:
    """The type of an ICMP message; None for anything else."""
    header = _header(datagram)
    if datagram[9] != ICMP or len(datagram) < header + 8 or int.from_bytes(datagram[6:8], "big") & _OFFSET:
        return None
    return datagram[header]


def flow_of(datagram: bytes) -> Flow | None:
    """Its flow; None for what has no ports. The datagram may be cut eight bytes behind its header."""
    header = _header(datagram)
    if len(datagram) < header + 8 or int.from_bytes(datagram[6:8], "big") & _OFFSET:
        return None
    ports: tuple[int, int]
    if datagram[9] in (TCP, UDP):
        ports = struct.unpack_from("!HH", datagram, header)
    elif icmp_type(datagram) in (ECHO, ECHO_REPLY):
        ports = (int.from_bytes(datagram[header + 4 : header + 6], "big"),) * 2
    else:
        return None
    source, destination = addresses(datagram)
    return Flow(datagram[9], source, ports[0], destination, ports[1])


def quoted(datagram: bytes) -> Flow | None:
    """The flow that an ICMP error is about; None for anything else."""
    if icmp_type(datagram) not in _ERRORS:
        return None
    inner = datagram[_header(datagram) + 8 :]
    return flow_of(inner) if len(inner) >= 28 and inner[0] >> 4 == 4 and _header(inner) >= 20 else None


def redirected(datagram: bytes, flow: Flow) -> bytes:
    """The datagram with the addresses and ports of a flow of the same protocol."""
    changed = bytearray(datagram)
    header = _header(datagram)
    there = flow.source.packed + flow.destination.packed
    _put(changed, 12, there, checksum_at=10)
    at = header + _CHECKSUM[flow.protocol]
    if flow.protocol == UDP and not any(changed[at : at + 2]):
        at = len(changed)
    if flow.protocol == ICMP:
        _put(changed, header + 4, struct.pack("!H", flow.source_port), checksum_at=at)
    else:
        # The checksums of UDP and TCP cover the addresses too (RFC 768, RFC 9293).
        _adjust(changed, at, datagram[12:20], there)
        ports = struct.pack("!HH", flow.source_port, flow.destination_port)
        _put(changed, header, ports, checksum_at=at)
    if flow.protocol == UDP and at + 2 <= len(changed) and not any(changed[at : at + 2]):
        changed[at : at + 2] = b"\xff\xff"
    return bytes(changed)


def requoted(datagram: bytes, source: IPv4Address, destination: IPv4Address, flow: Flow) -> bytes:
    """An ICMP error with other addresses, about another flow."""
    header = _header(datagram)
    body = datagram[header : header + 8] + redirected(datagram[header + 8 :], flow)
    return ipv4(source, destination, ICMP, _icmp(body), ttl=datagram[8])


def hop(datagram: bytes) -> bytes:
    """The datagram one router later."""
    changed = bytearray(datagram)
    _put(changed, 8, bytes([datagram[8] - 1, datagram[9]]), checksum_at=10)
    return bytes(changed)


def fragments(datagram: bytes, mtu: int) -> Iterator[bytes]:
    """The datagram in pieces of at most so many bytes."""
    if len(datagram) <= mtu:
        yield datagram
        return
    header = _header(datagram)
    body, size = datagram[header:], (mtu - header) // 8 * 8
    word = int.from_bytes(datagram[6:8], "big")
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        more = _MORE if start + size < len(body) else word & _MORE
        place = struct.pack("!H", (word & _OFFSET) + start // 8 | more)
        yield _reheaded(datagram, place, piece)


class Reassembly:
    """Puts fragments together; bounded in number, size and time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[bytes, tuple[float, dict[int, bytes]]] = {}

    def add(self, datagram: bytes) -> bytes | None:
        """The whole datagram, once this was its last missing piece; else None."""
        now = self._clock()
        self._waiting = {key: kept for key, kept in self._waiting.items() if kept[0] > now}
        key = datagram[4:6] + datagram[9:10] + datagram[12:20]
        if key not in self._waiting and len(self._waiting) >= _DATAGRAMS:
            return None
        _, pieces = self._waiting.setdefault(key, (now + _PATIENCE, {}))
        if len(pieces) < _PIECES:
            pieces[(int.from_bytes(datagram[6:8], "big") & _OFFSET) * 8] = datagram
        body, datagram = b"", b""
        for start, datagram in sorted(pieces.items()):
            if start != len(body):
                return None
            body += datagram[_header(datagram) :]
        if int.from_bytes(datagram[6:8], "big") & _MORE:
            return None
        del self._waiting[key]
        first = pieces[0]
        return _reheaded(first, b"\0\0", body) if _header(first) + len(body) <= _LONGEST else None


def error(datagram: bytes, source: IPv4Address, kind: int, code: int, rest: int = 0) -> bytes | None:
    """The ICMP error about a datagram; None when there must be none (RFC 1812, 4.3.2.7).

    Args:
        datagram: in question.
        source: who says so.
        kind: the message's type.
        code: and code.
        rest: the word behind the checksum, such as the next hop's MTU.
    """
    sender, receiver = addresses(datagram)
    nobody = sender.is_unspecified or sender.is_multicast or receiver.is_multicast
    about_error = datagram[9] == ICMP and icmp_type(datagram) not in (ECHO, ECHO_REPLY)
    if nobody or about_error or int.from_bytes(datagram[6:8], "big") & _OFFSET:
        return None
    return ipv4(source, sender, ICMP, _icmp(struct.pack("!BBHI", kind, code, 0, rest) + datagram[:_QUOTED]))


def echo_reply(datagram: bytes) -> bytes:
    """The answer to an ICMP echo."""
    source, destination = addresses(datagram)
    return ipv4(destination, source, ICMP, _icmp(bytes(4) + datagram[_header(datagram) + 4 :]))


def reset(datagram: bytes) -> bytes | None:
    """What ends the TCP connection that a datagram is of (RFC 9293, 3.10.7.1); None when there is none."""
    tcp = datagram[_header(datagram) :]
    if len(tcp) < 20 or tcp[13] & _RST:
        return None
    here, there, sequence, acknowledged = struct.unpack_from("!HHII", tcp)
    flags = tcp[13]
    if flags & _ACK:
        numbers = (acknowledged, 0, 0x50, _RST)
    else:
        length = len(tcp) - (tcp[12] >> 4) * 4 + bool(flags & _SYN) + bool(flags & _FIN)
        numbers = (0, (sequence + length) & 0xFFFFFFFF, 0x50, _RST | _ACK)
    answer = struct.pack("!HHIIBBHHH", there, here, *numbers, 0, 0, 0)
    source, destination = addresses(datagram)
    pseudo = destination.packed + source.packed + struct.pack("!HH", TCP, len(answer))
    answer = answer[:16] + checksum(pseudo + answer).to_bytes(2, "big") + answer[18:]
    return ipv4(destination, source, TCP, answer)


def _header(datagram: bytes) -> int:
    return (datagram[0] & 15) * 4


def _icmp(message: bytes) -> bytes:
    message = message[:2] + bytes(2) + message[4:]
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


def _reheaded(datagram: bytes, place: bytes, body: bytes) -> bytes:
    header = _header(datagram)
    length = (header + len(body)).to_bytes(2, "big")
    head = datagram[:2] + length + datagram[4:6] + place + datagram[8:10] + bytes(2) + datagram[12:header]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def _put(data: bytearray, at: int, new: bytes, *, checksum_at: int) -> None:
    old = bytes(data[at : at + len(new)])
    data[at : at + len(new)] = new
    _adjust(data, checksum_at, old, new)


def _adjust(data: bytearray, at: int, old: bytes, new: bytes) -> None:
    """Change a checksum as the data under it changes (RFC 1624, equation 3); beyond the end, do nothing."""
    if at + 2 > len(data):
        return
    words = struct.Struct(f"!{len(old) // 2}H")
    total = ~int.from_bytes(data[at : at + 2], "big") & 0xFFFF
    total += sum(~word & 0xFFFF for word in words.unpack(old)) + sum(words.unpack(new))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    data[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
