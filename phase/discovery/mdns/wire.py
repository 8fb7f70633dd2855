"""Reads and writes the DNS packets of multicast DNS. Packets may come from anyone.

A name is a tuple of labels, each of bytes as received; two names are the same if they are the same `folded`.

Source: RFC 1035 section 4, RFC 6762 section 18.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from phase.discovery.records import NODE_SERVICE, SERVICE

A, PTR, TXT, AAAA, SRV, NSEC, ANY = 1, 12, 16, 28, 33, 47, 255
_INTERNET, _TOP_BIT = 1, 0x8000
#: Limits for a packet, bytes: one that is read (RFC 6762, section 17), and one that is sent.
MAX_PACKET, MAX_SENT = 9000, 1440
#: Limits for the questions and records of one packet.
MAX_QUESTIONS, MAX_RECORDS = 64, 512
#: Limit for the compression pointers of one name.
_MAX_JUMPS = 32
_HEAD = struct.Struct("!HHHHHH")
_RECORD = struct.Struct("!HHIH")

Name = tuple[bytes, ...]


class Question(NamedTuple):
    """A question; `unicast` if the answer may go to the asker alone."""

    name: Name
    type: int
    unicast: bool = False


class Record(NamedTuple):
    """A resource record.

    Attributes:
        name: its owner.
        type: of the record.
        data: its bytes, with names not compressed, as RFC 6762 compares them.
        ttl: seconds; 0 says goodbye.
        unique: whether only its sender may have this name and type (the cache-flush bit).
    """

    name: Name
    type: int
    data: bytes
    ttl: int = 120
    unique: bool = False

    @property
    def key(self) -> tuple[Name, int, bytes]:
        """Two records with the same key are the same."""
        return folded(self.name), self.type, self.data


class Packet(NamedTuple):
    """A parsed packet."""

    number: int
    response: bool
    questions: list[Question]
    answers: list[Record]
    authorities: list[Record]
    additionals: list[Record]


class Bad(ValueError):  # never leaves this module
    """The bytes are not a DNS packet."""


def name(text: str) -> Name:
    """Read a name of our own: labels and dots, without escapes."""
    return tuple(label.encode() for label in text.rstrip(".").split("."))


SERVICE_NAME = name(SERVICE)
NODE_SERVICE_NAME = name(NODE_SERVICE)
#: The name that lists all types of services (RFC 6763, section 9).
META_NAME = name("_services._dns-sd._udp.local.")


def folded(of: Name) -> Name:
    """A name in lower case: ASCII letters of both cases are the same in DNS."""
    return tuple(label.lower() for label in of)


def text(of: Name) -> str:
    """A name for people: bytes that are not printable ASCII are escaped."""
    return "".join(
        "".join(chr(b) if 33 <= b < 127 and b not in b".\\" else f"\\{b:03d}" for b in label) + "."
        for label in of
    )


def pack_name(of: Name) -> bytes:
    """Write a name, without compression."""
    return b"".join(bytes((len(label),)) + label for label in of) + b"\0"


def pack_txt(pairs: Iterable[bytes]) -> bytes:
    """Write the data of a TXT record; a pair longer than 255 bytes does not fit and is an error."""
    return b"".join(bytes((len(pair),)) + pair for pair in pairs) or b"\0"


def read_txt(data: bytes) -> dict[bytes, bytes | None]:
    """The pairs of a TXT record; the first one counts if a key comes twice (RFC 6763, section 6.4)."""
    found: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(data) and len(found) < 64:
        pair = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        key, equals, value = pair.partition(b"=")
        if key:
            found.setdefault(key.lower(), value if equals else None)
    return found


def pack_srv(port: int, host: Name) -> bytes:
    """Write the data of an SRV record."""
    return struct.pack("!HHH", 0, 0, port) + pack_name(host)


def read_srv(data: bytes) -> tuple[int, Name]:
    """Port and host of an SRV record from `parse`."""
    return struct.unpack_from("!H", data, 4)[0], _name(data, 6)[0]


def read_ptr(data: bytes) -> Name:
    """The name that a PTR record from `parse` points to."""
    return _name(data, 0)[0]


def pack_nsec(of: Name, types: Iterable[int]) -> bytes:
    """Write the data of an NSEC record: the types that a name has, all below 256."""
    bits = bytearray(32)
    for each in types:
        bits[each // 8] |= 0x80 >> each % 8
    kept = bytes(bits).rstrip(b"\0")
    return pack_name(of) + bytes((0, len(kept))) + kept


def parse(data: bytes) -> Packet | None:
    """Parse a packet; None if it is malformed or does not belong to multicast DNS.

    A single malformed record is left out.
    """
    if not _HEAD.size <= len(data) <= MAX_PACKET:
        return None
    number, flags, *counts = _HEAD.unpack_from(data)
    # Other operations, and answers that are errors, are ignored (RFC 6762, section 18).
    if flags & 0x780F or counts[0] > MAX_QUESTIONS or sum(counts[1:]) > MAX_RECORDS:
        return None
    at = _HEAD.size
    questions: list[Question] = []
    sections: list[list[Record]] = [[], [], []]
    try:
        for _ in range(counts[0]):
            of, at = _name(data, at)
            kind, class_ = struct.unpack_from("!HH", data, at)
            at += 4
            if class_ & ~_TOP_BIT in (_INTERNET, ANY):
                questions.append(Question(of, kind, bool(class_ & _TOP_BIT)))
        for count, section in zip(counts[1:], sections, strict=True):
            for _ in range(count):
                record, at = _record(data, at)
                if record is not None:
                    section.append(record)
    except (Bad, struct.error):
        # Records before the mistake are used; a packet with a malformed question is not.
        if not flags & _TOP_BIT:
            return None
    return Packet(number, bool(flags & _TOP_BIT), questions, *sections)


def _record(data: bytes, at: int) -> tuple[Record | None, int]:
    of, at = _name(data, at)
    kind, class_, ttl, length = _RECORD.unpack_from(data, at)
    at += _RECORD.size
    end = at + length
    if end > len(data):
        raise Bad("a record is longer than its packet")
    if class_ & ~_TOP_BIT != _INTERNET:
        return None, end
    try:
        content = _content(data, at, end, kind)
    except (Bad, struct.error):
        return None, end
    return Record(of, kind, content, ttl, bool(class_ & _TOP_BIT)), end


def _content(data: bytes, at: int, end: int, kind: int) -> bytes:
    length = end - at
    if kind in (A, AAAA) and length != (4 if kind == A else 16):
        raise Bad("an address of another length")
    if kind == PTR:
        return pack_name(_name(data, at)[0])
    if kind == SRV:
        if length < 7:
            raise Bad("an SRV record that is too short")
        return data[at : at + 6] + pack_name(_name(data, at + 6)[0])
    return data[at:end]


def _name(data: bytes, at: int) -> tuple[Name, int]:
    """Read a name; returns it and the position after it."""
    labels: list[bytes] = []
    size, jumps, after = 0, 0, -1
    while True:
        if at >= len(data):
            raise Bad("a name without an end")
        length = data[at]
        if length >= 0xC0:
            if at + 1 >= len(data):
                raise Bad("a name without an end")
            target = (length & 0x3F) << 8 | data[at + 1]
            after = at + 2 if after < 0 else after
            jumps += 1
            # A pointer may only point back, so that a name cannot lead to itself.
            if target >= at or jumps > _MAX_JUMPS:
                raise Bad("a name that points around")
            at = target
            continue
        if length >= 0x40:
            raise Bad("a label of an unknown kind")
        at += 1
        if not length:
            return tuple(labels), at if after < 0 else after
        size += length + 1
        if size > 254 or at + length > len(data):
            raise Bad("a name that is too long")
        labels.append(data[at : at + length])
        at += length


def query(
    questions: Sequence[Question], known: Sequence[Record] = (), claimed: Sequence[Record] = ()
) -> bytes:
    """Write a question.

    Args:
        questions: the questions.
        known: answers that the asker has already; as many as fit are written.
        claimed: records that the asker wants to own (RFC 6762, section 8.1).
    """
    return _write(0, 0, questions, [known, claimed, ()])[0]


def responses(
    answers: Sequence[Record],
    additionals: Sequence[Record] = (),
    *,
    number: int = 0,
    questions: Sequence[Question] = (),
) -> list[bytes]:
    """Write an answer: one packet, or more if the answers do not fit into one.

    Args:
        answers: the records that answer.
        additionals: further records; as many as fit into the last packet are written.
        number: id of the question, for an asker that only knows ordinary DNS.
        questions: the questions to repeat, for such an asker.
    """
    packets = []
    left = list(answers)
    while left:
        packet, fitted = _write(number, 0x8400, questions, [left, (), additionals])
        packets.append(packet)
        left = left[max(fitted, 1) :]
    return packets


def _write(
    number: int, flags: int, questions: Sequence[Question], sections: Sequence[Sequence[Record]]
) -> tuple[bytes, int]:
    """Write a packet; returns it and the number of records of the first section that fit into it."""
    out = bytearray(_HEAD.size)
    places: dict[Name, int] = {}
    for one in questions:
        _put_name(out, one.name, places)
        out += struct.pack("!HH", one.type, _INTERNET | (_TOP_BIT if one.unicast else 0))
    counts = [0, 0, 0]
    for position, section in enumerate(sections):
        if position and counts[0] < len(sections[0]) and flags:
            break
        for record in section:
            before, known = len(out), dict(places)
            _put_name(out, record.name, places)
            class_ = _INTERNET | (_TOP_BIT if record.unique else 0)
            out += _RECORD.pack(record.type, class_, record.ttl, 0)
            at = len(out)
            _put_content(out, record, places)
            struct.pack_into("!H", out, at - 2, len(out) - at)
            if len(out) > MAX_SENT and any(counts):
                del out[before:]
                places = known
                break
            counts[position] += 1
    _HEAD.pack_into(out, 0, number, flags, len(questions), *counts)
    return bytes(out), counts[0]


def _put_content(out: bytearray, record: Record, places: dict[Name, int]) -> None:
    if record.type == PTR:
        _put_name(out, read_ptr(record.data), places)
    elif record.type == SRV:
        out += record.data[:6]
        _put_name(out, read_srv(record.data)[1], places)
    else:
        out += record.data


def _put_name(out: bytearray, of: Name, places: dict[Name, int]) -> None:
    for position in range(len(of)):
        place = places.get(of[position:])
        if place is not None:
            out += struct.pack("!H", 0xC000 | place)
            return
        if len(out) < 0x4000:
            places[of[position:]] = len(out)
        out += bytes((len(of[position]),)) + of[position]
    out += b"\0"
