"""The datagrams of the DHT: one byte for question or answer, a random id of 20 bytes, then msgpack.

The format is that of the libraries rpcudp and kademlia, but an answer to `find_value` has the nearest nodes
beside the value, so that a search can go on. Datagrams may come from anyone.
"""

import hashlib
import ipaddress
import os
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

QUESTION, ANSWER = 0, 1
ID_BYTES = 20
#: Limit for a datagram, bytes: an answer with a full place and its nearest nodes.
MAX_DATAGRAM = 16 << 10
MAX_CONTACTS = 32
MAX_VALUES = 16

#: The first bytes of an id, which the node's address decides: who wants to be near to a place needs an
#: address that is. The others tell the nodes of one address apart. (BEP 42 of BitTorrent does the like.)
BOUND_BYTES = 4

_Id = Annotated[bytes, msgspec.Meta(min_length=ID_BYTES, max_length=ID_BYTES)]


class Contact(NamedTuple):
    """A node: its id, its IPv4 address and its UDP port."""

    id: bytes
    host: str
    port: int

    @property
    def number(self) -> int:
        """The id as a number, for distances."""
        return int.from_bytes(self.id)

    @property
    def bound(self) -> bool:
        """Whether the address decides the id; otherwise its holder may have chosen it."""
        return self.id[:BOUND_BYTES] == _bound(self.host)

    @property
    def network(self) -> str:
        """The first three numbers of the address (/24)."""
        return self.host.rpartition(".")[0]


@lru_cache(maxsize=4096)
def _bound(host: str) -> bytes:
    return hashlib.sha256(b"/phase/node/" + host.encode()).digest()[:BOUND_BYTES]


def id_at(host: str) -> bytes:
    """An id for a node at an IPv4 address."""
    return _bound(host) + os.urandom(ID_BYTES - BOUND_BYTES)


Contacts = Annotated[list[tuple[_Id, str, int]], msgspec.Meta(max_length=MAX_CONTACTS)]


class Values(msgspec.Struct, frozen=True):
    """An answer to `find_value` with values."""

    value: Annotated[list[bytes], msgspec.Meta(max_length=MAX_VALUES)] | bytes
    nodes: Contacts = []

    @property
    def envelopes(self) -> list[bytes]:
        """The values; a node of the library sends one."""
        return [self.value] if isinstance(self.value, bytes) else self.value


Found = Values | Contacts
Seen = tuple[str, int]


class Message(NamedTuple):
    """A datagram whose body is not decoded yet, since its type depends on the question."""

    kind: int
    id: bytes
    body: bytes


def split(datagram: bytes) -> Message | None:
    """Parse a datagram; None if it is not one of this protocol."""
    if not 1 + ID_BYTES < len(datagram) <= MAX_DATAGRAM or datagram[0] not in (QUESTION, ANSWER):
        return None
    return Message(datagram[0], datagram[1 : 1 + ID_BYTES], datagram[1 + ID_BYTES :])


def question(number: bytes, name: str, *arguments: bytes) -> bytes:
    """Write a question."""
    return bytes((QUESTION,)) + number + msgspec.msgpack.encode((name, arguments))


def question_bytes(name: str, *arguments: bytes) -> int:
    """The length of a question, bytes."""
    return 1 + ID_BYTES + size((name, arguments))


def size(said: object) -> int:
    """The body of a question or an answer."""
    return len(msgspec.msgpack.encode(said))


def answer(number: bytes, said: object) -> bytes:
    """Write an answer."""
    return bytes((ANSWER,)) + number + msgspec.msgpack.encode(said)


_question = msgspec.msgpack.Decoder(
    tuple[Annotated[str, msgspec.Meta(max_length=16)], Annotated[list[bytes], msgspec.Meta(max_length=3)]]
)


def read_question(body: bytes) -> tuple[str, list[bytes]] | None:
    """The name and the arguments of a question; None if it is malformed."""
    try:
        return _question.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def usable(contacts: list[tuple[bytes, str, int]], *, teller: str) -> list[Contact]:
    """The nodes with a usable address, of those that an answer names.

    Args:
        contacts: as they came.
        teller: address of the node that answers: only a node on loopback may name one there.
    """
    found = []
    for number, host, port in contacts:
        try:
            ip = ipaddress.IPv4Address(host)
        except ValueError:
            continue
        odd = ip.is_multicast or ip.is_unspecified or host == "255.255.255.255"
        if odd or not 0 < port < 65_536 or (ip.is_loopback and not teller.startswith("127.")):
            continue
        found.append(Contact(number, str(ip), port))
    return found
