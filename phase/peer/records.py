"""What a node can do, as it says itself: a signed record that ends, kept in the DHT.

The signature shows that the holder of a node's key has said it, and when; not that it is true. So a record
is a hint, as every other that discovery gives.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Annotated

import msgspec

from phase import dsse
from phase.discovery.dht import announcement
from phase.discovery.dht.announcement import LIFETIME, AnnouncementError
from phase.discovery.dht.said import Said
from phase.foreign import MalformedError, read_json
from phase.peer.address import Address

PAYLOAD_TYPE = "application/vnd.phase.capability+json"
#: Limit for an envelope, bytes.
MAX_BYTES = 1024
MAX_HOSTS, MAX_RELAYS, MAX_RUNTIMES = 4, 2, 4

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._-]{1,32}\Z")]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
_Hint = Annotated[str, msgspec.Meta(max_length=64)]


class RecordError(AnnouncementError):
    """The bytes are not a record of a node, or it must not be used."""


class Capability(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One node.

    Attributes:
        arch: canonical architecture.
        runtimes: what it runs, such as `wasi-preview1`; 1 to 4.
        hosts: `IP:PORT` of UDP where it can be reached, 1 to 4; the first is IPv4.
        relays: `http://IP:PORT` of relays that it is connected to, at most 2.
        processors: that it has.
        memory: that it has, MiB.
        slots: jobs that it would take now, at the same time.
        seq: grows with each record of a key.
        expires: seconds since the epoch.
        key: the node's, 64 hex digits; it comes from the signature, not from the text.
    """

    arch: _Name
    runtimes: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=MAX_RUNTIMES)]
    hosts: Annotated[tuple[_Hint, ...], msgspec.Meta(min_length=1, max_length=MAX_HOSTS)]
    relays: Annotated[tuple[_Hint, ...], msgspec.Meta(max_length=MAX_RELAYS)] = ()
    processors: _Count
    memory: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
    slots: _Count
    seq: _Number = 0
    expires: _Number = 0
    key: str = ""

    @property
    def host(self) -> str:
        """The IPv4 address of the first of its hosts."""
        return self.hosts[0].rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of the first of its hosts."""
        return int(self.hosts[0].rpartition(":")[2])

    @property
    def address(self) -> Address:
        """Where to connect to."""
        return Address(self.key, self.hosts, self.relays)


def key(arch: str, runtime: str) -> bytes:
    """The place of an architecture and runtime in the DHT, 20 bytes."""
    # Kademlia's own hash: it only spreads keys over nodes.
    return hashlib.sha1(f"/phase/capability/{arch}/{runtime}".encode(), usedforsecurity=False).digest()


def sign(identity: dsse.SigningIdentity, can: Capability, *, now: float) -> bytes:
    """Make an envelope.

    Args:
        identity: the node's.
        can: what it can do; `seq`, `expires` and `key` are set here.
        now: seconds since the epoch.

    Raises:
        RecordError: others would not take it; the message says why.
    """
    said = msgspec.structs.replace(can, seq=int(now * 1000), expires=int(now) + LIFETIME, key="")
    envelope = dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(said), [identity])
    # What nobody else would take is this node's own mistake.
    read(envelope, place=key(can.arch, next(iter(can.runtimes), "")), now=now)
    return envelope


def read(envelope: bytes, *, place: bytes, now: float) -> Capability:
    """Check an envelope.

    Args:
        envelope: from anyone.
        place: its place in the DHT.
        now: seconds since the epoch.

    Raises:
        RecordError: it is not valid; the message says why.
    """
    if len(envelope) > MAX_BYTES:
        raise RecordError(f"a record has {len(envelope)} bytes; the limit is {MAX_BYTES}")
    try:
        # The claimed key; the signature proves it below.
        claimed = dsse.claimed_keys(envelope)
        if len(claimed) != 1:
            raise RecordError(f"a record has one signature, not {len(claimed)}")
        said = read_json(dsse.verify(envelope, keys=claimed, payload_type=PAYLOAD_TYPE), Capability)
        found = msgspec.structs.replace(said, key=claimed[0].lower())
        # All its parts are checked there.
        _ = found.address
    except (dsse.DsseError, MalformedError, ValueError) as error:
        raise RecordError(f"not a record of a node: {error}") from error
    if place not in [key(found.arch, runtime) for runtime in found.runtimes]:
        raise RecordError(f"a record of {found.arch} with {', '.join(found.runtimes)} in another's place")
    _check_hosts(found.hosts)
    if found.expires <= now:
        raise RecordError(f"a record that expired {now - found.expires:.0f} s ago")
    return found


def read_any(envelope: bytes, *, place: bytes, now: float) -> Said:
    """Check the envelope of a node or of a provider; see `read`.

    Raises:
        AnnouncementError: it is neither.
    """
    if b'"' + PAYLOAD_TYPE.encode() + b'"' in envelope[:MAX_BYTES]:
        return read(envelope, place=place, now=now)
    return announcement.read(envelope, place=place, now=now)


def _check_hosts(hosts: Sequence[str]) -> None:
    for number, each in enumerate(hosts):
        text = each.rpartition(":")[0]
        try:
            ip = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise RecordError(f"{each[:60]!r} has no IP address") from None
        if number == 0 and not announcement.is_unicast(text):
            raise RecordError(f"{text[:60]!r} is not an IPv4 address of a host")
        if ip.is_multicast or ip.is_unspecified:
            raise RecordError(f"{text[:60]!r} is not the address of a host")
