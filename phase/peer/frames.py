"""The frames between a relay and the endpoints it serves: iroh's relay protocol, versions 1 and 2.

Each binary message of the WebSocket is one frame: a type of one byte, then its content. Datagrams name the
endpoint they go to on the way in, and the endpoint they come from on the way out.

Source: the relay protocol of iroh 1.0, module `iroh_relay::protos`.
"""

from enum import IntEnum
from typing import NamedTuple

from blake3 import blake3
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from phase.peer.errors import PeerError

#: The protocol's names in the WebSocket's handshake, the wanted one first.
PROTOCOLS = ("iroh-relay-v2", "iroh-relay-v1")
#: Limit for a frame without its type, bytes.
MAX_CONTENT = 1 << 16
KEY_BYTES = 32
CHALLENGE_BYTES = 16
_SIGNATURE_BYTES = 64
_PING_BYTES = 8
_CONTEXT = "iroh-relay handshake v1 challenge signature"


class FrameError(PeerError):
    """Bytes are not a frame that an endpoint sends."""


class Type(IntEnum):
    """The first byte of a frame."""

    CHALLENGE = 0
    AUTHENTICATION = 1
    CONFIRMATION = 2
    DENIAL = 3
    #: To a relay: one datagram, or several of equal size.
    DATAGRAM_IN = 4
    DATAGRAMS_IN = 5
    #: From a relay.
    DATAGRAM_OUT = 6
    DATAGRAMS_OUT = 7
    GONE = 8
    PING = 9
    PONG = 10
    #: Of version 1, a text; version 2 has `STATUS`.
    HEALTH = 11
    RESTARTING = 12
    STATUS = 13


class Status(IntEnum):
    """What `STATUS` says."""

    HEALTHY = 0
    #: Another connection with the same key gets the datagrams now.
    SAME_KEY = 1


class Datagrams(NamedTuple):
    """Datagrams to pass on: the endpoint they go to, and the rest of the frame as it is sent on."""

    kind: Type
    to: bytes
    rest: bytes


class Ping(NamedTuple):
    """A question for a sign of life, or the answer to one."""

    kind: Type
    data: bytes


#: The shortest content: key, mark of congestion, (size of each datagram,) one byte.
_SHORTEST = {Type.DATAGRAM_IN: KEY_BYTES + 2, Type.DATAGRAMS_IN: KEY_BYTES + 4}
_OUT = {Type.DATAGRAM_IN: Type.DATAGRAM_OUT, Type.DATAGRAMS_IN: Type.DATAGRAMS_OUT}


def read(frame: bytes) -> Datagrams | Ping:
    """Read a frame of an endpoint that has proven its key.

    Args:
        frame: a whole message.

    Raises:
        FrameError: it is none, or one that only a relay sends.
    """
    if not 0 < len(frame) <= MAX_CONTENT + 1:
        raise FrameError(f"a frame has {len(frame)} bytes; the limit is {MAX_CONTENT + 1}")
    kind, size = frame[0], len(frame) - 1
    if kind in _SHORTEST:
        least = _SHORTEST[Type(kind)]
        if size < least:
            raise FrameError(f"datagrams have {size} bytes; the least is {least}")
        return Datagrams(Type(kind), frame[1 : 1 + KEY_BYTES], frame[1 + KEY_BYTES :])
    if kind in (Type.PING, Type.PONG) and size == _PING_BYTES:
        return Ping(Type(kind), frame[1:])
    raise FrameError(f"a frame of type {kind} and {size} bytes is none that an endpoint sends")


def passed_on(kind: Type, source: bytes) -> bytes:
    """The beginning of the frame in which datagrams are sent on; `Datagrams.rest` follows.

    Args:
        kind: as they came.
        source: the key of the endpoint that has sent them.
    """
    return bytes([_OUT[kind]]) + source


def ping(data: bytes, kind: Type = Type.PING) -> bytes:
    """A question for a sign of life, or the answer to one."""
    return bytes([kind]) + data


def gone(key: bytes) -> bytes:
    """Tells an endpoint that a peer of it has left."""
    return bytes([Type.GONE]) + key


def status(said: Status, protocol: str) -> bytes:
    """What an endpoint should know about its connection."""
    if protocol == PROTOCOLS[0]:
        return bytes([Type.STATUS, said])
    return bytes([Type.HEALTH]) + (b"", b"same endpoint id connected")[said]


def challenge(random: bytes) -> bytes:
    """The frame with which a relay asks for a proof of the key."""
    return bytes([Type.CHALLENGE]) + random


def confirmation() -> bytes:
    """The frame that lets an endpoint in."""
    return bytes([Type.CONFIRMATION])


def denial(why: str) -> bytes:
    """The frame that keeps an endpoint out.

    Args:
        why: ASCII, at most 127 characters: so its length takes one byte.
    """
    return bytes([Type.DENIAL, len(why)]) + why.encode("ascii")


def signed(random: bytes) -> bytes:
    """What an endpoint signs to prove its key."""
    return blake3(random, derive_key_context=_CONTEXT).digest()


def prover(frame: bytes, random: bytes) -> bytes:
    """The key that an endpoint has proven.

    Args:
        frame: its answer to the challenge: type, key, the signature's length, the signature.
        random: the challenge.

    Raises:
        FrameError: the bytes are no answer, or the signature is not of that key.
    """
    if len(frame) != 2 + KEY_BYTES + _SIGNATURE_BYTES or frame[0] != Type.AUTHENTICATION:
        raise FrameError("not an answer to the challenge")
    key, length, signature = frame[1 : 1 + KEY_BYTES], frame[1 + KEY_BYTES], frame[2 + KEY_BYTES :]
    if length != _SIGNATURE_BYTES:
        raise FrameError("not an answer to the challenge")
    try:
        crypto_sign_open(signature + signed(random), key)
    except BadSignatureError:
        raise FrameError("signature invalid") from None
    return key
