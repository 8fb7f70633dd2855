"""What peers say: to a relay, of themselves, of others, and at the end."""

import asyncio
import contextlib

from aiohttp import web

from phase.identity import Identity
from phase.peer import bindings, frames, nearby, records, seen
from phase.peer.address import MAX_HOSTS, MAX_RELAYS, Address
from phase.peer.errors import PeerError
from phase.peer.member import Member
from phase.peer.records import Capability, RecordError
from phase.peer.relay import Limits, Relay
from phase.peer.transport import MAX_REASON
from tests.fuzz.envelopes import NODE
from tests.fuzz.metadata import NOW
from tests.fuzz.publishing import short

PLACE = records.key("x86_64", "wasi-preview1")
CHALLENGE = bytes(range(frames.CHALLENGE_BYTES))
_OTHER = Identity.from_seed(bytes(32))
_LIMITS = Limits(peers=4, waiting_frames=8, waiting_bytes=100_000)


def capability() -> bytes:
    """A good record."""
    can = Capability(
        arch="x86_64",
        runtimes=("wasi-preview1",),
        hosts=("192.0.2.1:4433", "[2001:db8::1]:4433"),
        relays=("http://192.0.2.9:8080",),
        processors=4,
        memory=2048,
        slots=2,
    )
    return records.sign(NODE, can, now=NOW.timestamp())


def recorded(data: bytes) -> None:
    """A record of a node in the DHT."""
    try:
        said = records.read(data, place=PLACE, now=NOW.timestamp())
    except RecordError as error:
        short(error)
    else:
        assert said.expires > NOW.timestamp()
        assert 0 < said.port < 65_536
        assert "wasi-preview1" in said.runtimes
        assert said.address.key == said.key


def nearby_txt(data: bytes) -> None:
    """The TXT record of a node in multicast DNS."""
    pairs = {name: value for name, _, value in (each.partition(b"=") for each in data.split(b"\0")[:20])}
    found = nearby.from_txt(pairs, "192.0.2.1", 4433, size=len(data))
    if found is not None:
        assert found.address.hosts == ("192.0.2.1:4433",)
        assert all(each.isprintable() for each in (found.arch, *found.runtimes))


def session() -> bytes:
    """Frames that an endpoint sends, each behind its length."""
    to = bytes.fromhex(_OTHER.public_key)
    sent = (
        bytes([frames.Type.DATAGRAM_IN]) + to + b"\0hello",
        bytes([frames.Type.DATAGRAMS_IN]) + to + b"\0\0\2hello!",
        frames.ping(b"12345678"),
        frames.ping(b"12345678", frames.Type.PONG),
    )
    return b"".join(len(each).to_bytes(2, "big") + each for each in sent)


def relayed(data: bytes) -> None:
    """What an endpoint sends to a relay that has let it in: what waits for others is bounded."""

    async def take() -> None:
        relay = Relay(lambda key: True, _LIMITS)
        here, there = _member(relay, NODE), _member(relay, _OTHER)
        left = data
        while left and not here.over:
            size = int.from_bytes(left[:2], "big")
            frame, left = left[2 : 2 + size], left[2 + size :]
            with contextlib.suppress(frames.FrameError):
                relay.take(frame, here)
        for member in (here, there):
            assert len(member._waiting) <= 2 * _LIMITS.waiting_frames
            assert member._bytes == sum(map(len, member._waiting)) <= _LIMITS.waiting_bytes + 1000
        assert relay.counts.waiting == here._bytes + there._bytes
        for passed in there._waiting:
            assert passed[0] in (frames.Type.DATAGRAM_OUT, frames.Type.DATAGRAMS_OUT)
            assert passed[1:33] == here.key
        assert len(here.peers) <= _LIMITS.peers

    asyncio.run(take())


def _member(relay: Relay, identity: Identity) -> Member:
    key = bytes.fromhex(identity.public_key)
    member = Member(key, web.WebSocketResponse(), None, "192.0.2.1", _LIMITS, relay.counts)
    relay._enter(member)
    return member


def framed(data: bytes) -> None:
    """One frame."""
    try:
        found = frames.read(data)
    except frames.FrameError as error:
        short(error)
    else:
        if isinstance(found, frames.Datagrams):
            assert len(found.to) == frames.KEY_BYTES
            assert len(frames.passed_on(found.kind, bytes(32)) + found.rest) == len(data)


def proof() -> bytes:
    """A good answer to the challenge."""
    key = bytes.fromhex(NODE.public_key)
    signature = NODE.sign(frames.signed(CHALLENGE))
    return bytes([frames.Type.AUTHENTICATION]) + key + bytes([len(signature)]) + signature


def proven(data: bytes) -> None:
    """An answer to a relay's challenge: nobody has another's key."""
    try:
        key = frames.prover(data, CHALLENGE)
    except frames.FrameError as error:
        short(error)
    else:
        assert data == proof() or key.hex() != NODE.public_key


def addressed(data: bytes) -> None:
    """An address that a person writes."""
    try:
        found = Address.parse(data.decode("utf-8", "replace"))
    except PeerError as error:
        short(error)
    else:
        assert len(found.hosts) <= MAX_HOSTS
        assert len(found.relays) <= MAX_RELAYS
        assert Address.parse(str(found)) == found


def told(data: bytes) -> None:
    """A datagram with the address that a peer sees."""
    found = seen.told(data)
    if found:
        assert Address(NODE.public_key, (found,)).hosts == (found,)
        assert seen.told(seen.tell(found)) == found


def ended(data: bytes) -> None:
    """The reason with which a peer ends a connection, as the library gives it on."""
    text = str(bindings.ended(data.decode("utf-8", "replace")))
    assert text.isprintable()
    assert len(text) <= MAX_REASON + 100
