"""What a provider says of itself in the DHT: a DSSE envelope that its own key has signed.

The signature makes nobody trustworthy: anybody makes a key. It lets the newest word of each key be told from
an older one, and from what somebody else would put in its place.
"""

import hashlib
import ipaddress
from typing import Annotated

import msgspec

from phase import dsse
from phase.discovery.records import DiscoveryError
from phase.foreign import MalformedError, read_json

PAYLOAD_TYPE = "application/vnd.phase.provider+json"
#: Bytes of one envelope.
MAX_BYTES = 512
#: Seconds one counts from when it was signed.
LIFETIME = 900
#: Seconds by which the clocks of two honest nodes may differ.
SKEW = 300

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class AnnouncementError(DiscoveryError):
    """Not an announcement, or not one to keep."""


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One provider of one channel and architecture.

    Attributes:
        channel: release channel.
        arch: canonical architecture.
        host: IPv4 address.
        port: where it serves HTTP.
        version: of the release it has.
        seq: grows with each announcement that a key signs.
        expires: seconds since the epoch.
        key: who signed, 64 hex digits; known by the signature, so nobody writes it.
    """

    channel: _Name
    arch: _Name
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    version: _Number
    seq: _Number
    expires: _Number
    key: str = ""

    @property
    def url(self) -> str:
        """Where to ask."""
        return f"http://{self.host}:{self.port}"


def key(channel: str, arch: str) -> bytes:
    """Where in the DHT the providers of a channel and architecture stand, 20 bytes."""
    # Kademlia's own hash: it spreads keys over nodes and protects nothing.
    return hashlib.sha1(f"/phase/{channel}/{arch}/manifest".encode(), usedforsecurity=False).digest()


def sign(
    identity: dsse.SigningIdentity,
    *,
    channel: str,
    arch: str,
    host: str,
    port: int,
    version: int,
    now: float,
) -> bytes:
    """Make an envelope.

    Args:
        identity: the provider's.
        channel: release channel.
        arch: canonical architecture.
        host: IPv4 address others reach it at.
        port: where it serves HTTP.
        version: of the release it has.
        now: seconds since the epoch.
    """
    said = Announcement(channel, arch, host, port, version, int(now * 1000), int(now) + LIFETIME)
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(said), [identity])


def read(envelope: bytes, *, place: bytes, now: float) -> Announcement:
    """Check an envelope.

    Args:
        envelope: from anybody.
        place: the key of the DHT that it was found under.
        now: seconds since the epoch.

    Raises:
        AnnouncementError: with the reason.
    """
    if len(envelope) > MAX_BYTES:
        raise AnnouncementError(f"an announcement has {len(envelope)} bytes; the limit is {MAX_BYTES}")
    try:
        # Whose signature to look for; it is theirs only if it holds.
        claimed = dsse.claimed_keys(envelope)
        if len(claimed) != 1:
            raise AnnouncementError(f"an announcement has one signature, not {len(claimed)}")
        said = read_json(dsse.verify(envelope, keys=claimed, payload_type=PAYLOAD_TYPE), Announcement)
    except (dsse.DsseError, MalformedError) as error:
        raise AnnouncementError(f"not an announcement: {error}") from error
    if key(said.channel, said.arch) != place:
        raise AnnouncementError(f"an announcement of {said.channel}/{said.arch} in another's place")
    if not is_unicast(said.host):
        raise AnnouncementError(f"{said.host[:60]!r} is not an IPv4 address of a host")
    if said.expires <= now:
        raise AnnouncementError(f"an announcement that expired {now - said.expires:.0f} s ago")
    return msgspec.structs.replace(said, key=claimed[0].lower())


def is_near(text: str) -> bool:
    """Whether an address means a machine to itself, or to its neighbours on the cable, only."""
    return text.startswith(("127.", "169.254."))


def is_unicast(text: str) -> bool:
    """Whether it is an IPv4 address that one host may have."""
    try:
        ip = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (ip.is_multicast or ip.is_unspecified or text == "255.255.255.255")
