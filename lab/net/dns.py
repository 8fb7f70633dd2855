"""A name server that lives on a segment (RFC 1035; AAAA of RFC 3596, SRV of RFC 2782).

It answers from a table, asks no other server, and can be wrong in the ways that real ones are.
"""

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

from lab.errors import MisuseError
from lab.net.packet import ARP, IPV4, UDP, arp_reply, ethernet, parse, udp

_TYPES = {"A": 1, "TXT": 16, "AAAA": 28, "SRV": 33}
_FORMAT_ERROR, _SERVER_FAILURE, _NO_NAME = 1, 2, 3
_LONGEST = 512
_TRUNCATED = 0x0200

#: It keeps silent, fails, or answers a question that was not asked.
Fault = Literal["timeout", "servfail", "wrong-id"]


class Question(NamedTuple):
    """What is asked.

    Attributes:
        id: by which the answer is known.
        name: in small letters, without the last dot.
        kind: the number of the type of record.
        raw: the question's own bytes.
    """

    id: int
    name: str
    kind: int
    raw: bytes


class DnsServer:
    """A name server; plug it in with `segment.switch.add_service(server, "dns")`.

    Args:
        address: its own, free on the segment.

    Attributes:
        fault: what is wrong with it; may be set at any time.
        asked: names, in the order of the questions; the last thousand at most are kept.
    """

    def __init__(self, address: IPv4Address) -> None:
        self.address = address
        self.mac = b"\x52\x54\x00\x4c" + address.packed[2:]
        self.fault: Fault | None = None
        self.asked: list[str] = []
        self._table: dict[str, list[tuple[int, bytes]]] = {}

    def add(self, name: str, kind: str, value: str) -> None:
        """Add a record.

        Args:
            name: such as `host.lab`.
            kind: `A`, `AAAA`, `TXT` or `SRV`.
            value: an address; a text; `priority weight port target`.

        Raises:
            MisuseError: there is no such record.
        """
        if kind not in _TYPES:
            raise MisuseError(f"no record of type {kind!r}; known: {', '.join(_TYPES)}")
        try:
            _name(name)
            data = _data(kind, value)
        except ValueError as error:
            raise MisuseError(f"{name} {kind} {value!r} is not a record: {error}") from error
        self._table.setdefault(name.lower().rstrip("."), []).append((_TYPES[kind], data))

    def __call__(self, frame: bytes) -> list[bytes]:
        """Answer a frame, when it is for this server."""
        packet = parse(frame)
        if packet.destination != self.address:
            return []
        if packet.kind == ARP and packet.operation == 1:
            return [arp_reply(self.mac, self.address, frame)]
        if packet.protocol != UDP or packet.source is None or packet.source_port is None:
            return []
        if packet.destination_port != 53:
            return []
        said = self.answer(frame[packet.payload : packet.end])
        if said is None:
            return []
        datagram = udp((self.address, 53), (packet.source, packet.source_port), said)
        return [ethernet(packet.from_mac, self.mac, IPV4, datagram)]

    def answer(self, message: bytes) -> bytes | None:
        """The answer to a message; None when there is none."""
        if len(message) < 12 or message[2] & 0x80:
            return None
        question = _question(message)
        if question is None:
            return message[:2] + struct.pack("!HHHHH", 0x8400 | _FORMAT_ERROR, 0, 0, 0, 0)
        self.asked = [*self.asked[-999:], question.name]
        if self.fault == "timeout":
            return None
        if self.fault == "servfail":
            return _reply(question, _SERVER_FAILURE, [])
        if self.fault == "wrong-id":
            question = question._replace(id=question.id ^ 0x5555)
        known = self._table.get(question.name)
        if known is None:
            return _reply(question, _NO_NAME, [])
        return _reply(question, 0, [record for record in known if question.kind in (record[0], 255)])


def _reply(question: Question, code: int, records: list[tuple[int, bytes]]) -> bytes:
    # The name is that of the question: a pointer to byte 12 (RFC 1035, 4.1.4).
    answers = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records]
    flags = 0x8400 | code
    if 12 + len(question.raw) + sum(len(answer) for answer in answers) > _LONGEST:
        answers, flags = [], flags | _TRUNCATED
    return (
        struct.pack("!HHHHHH", question.id, flags, 1, len(answers), 0, 0) + question.raw + b"".join(answers)
    )


def _question(message: bytes) -> Question | None:
    number, _, count = struct.unpack_from("!HHH", message)
    labels, position = [], 12
    while position < len(message) and (length := message[position]):
        if length > 63 or position - 12 > 255:
            return None
        labels.append(message[position + 1 : position + 1 + length])
        position += 1 + length
    end = position + 5
    if count != 1 or len(message) < end:
        return None
    kind = int.from_bytes(message[position + 1 : position + 3], "big")
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Question(number, name, kind, message[12:end])


def _name(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(1 <= len(label) <= 63 for label in labels):
        raise ValueError("a label has 1 to 63 letters")
    whole = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(whole) > 255:
        raise ValueError("the name is too long")
    return whole


def _data(kind: str, value: str) -> bytes:
    if kind == "A":
        return IPv4Address(value).packed
    if kind == "AAAA":
        return IPv6Address(value).packed
    if kind == "TXT":
        text = value.encode()
        if len(text) > 255:
            raise ValueError("a text has 255 bytes at most")
        return bytes([len(text)]) + text
    priority, weight, port, target = value.split()
    try:
        return struct.pack("!HHH", int(priority), int(weight), int(port)) + _name(target)
    except struct.error as error:
        raise ValueError(str(error)) from error
