"""The announcement of a provider in the DHT: a DSSE envelope that its own key has signed.

The signature does not create trust, since anyone can make a key. It tells a newer announcement of a key from
an older one, and keeps others from replacing it.
"""

import hashlib
import ipaddress
from typing import Annotated

import msgspec

from phase import dsse
from phase.discovery.records import DiscoveryError
from phase.foreign import MalformedError, read_json

PAYLOAD_TYPE = "application/vnd.phase.provider+json"
#: Limit for an envelope, bytes.
MAX_BYTES = 512
#: Seconds for which an announcement holds.
LIFETIME = 900
#: The clocks of two honest nodes may differ by this many seconds.
SKEW = 300

_Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class AnnouncementError(DiscoveryError):
    """The bytes are not an announcement, or it must not be kept."""


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One provider of one channel and architecture.

    Attributes:
        channel: release channel.
        arch: canonical architecture.
        host: IPv4 address.
        port: TCP port of its HTTP server.
        version: of its release.
        seq: grows with each announcement of a key.
        expires: seconds since the epoch.
        key: the signing key, 64 hex digits; it comes from the signature, not from the text.
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
        """The address to ask."""
        return f"http://{self.host}:{self.port}"


def key(channel: str, arch: str) -> bytes:
    """The place of a channel and architecture in the DHT, 20 bytes."""
    # Kademlia's own hash: it only spreads keys over nodes.
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
        host: IPv4 address to announce.
        port: TCP port of its HTTP server.
        version: of its release.
        now: seconds since the epoch.
    """
    said = Announcement(channel, arch, host, port, version, int(now * 1000), int(now) + LIFETIME)
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(said), [identity])


def read(envelope: bytes, *, place: bytes, now: float) -> Announcement:
    """Check an envelope.

    Args:
        envelope: from anyone.
        place: its place in the DHT.
        now: seconds since the epoch.

    Raises:
        AnnouncementError: it is not valid; the message says why.
    """
    if len(envelope) > MAX_BYTES:
        raise AnnouncementError(f"an announcement has {len(envelope)} bytes; the limit is {MAX_BYTES}")
    try:
        # The claimed key; the signature proves it below.
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
    """Whether an address has a meaning only on its own machine, or on its own link."""
    return text.startswith(("127.", "169.254."))


def is_unicast(text: str) -> bool:
    """Whether a text is an IPv4 address that one host can have."""
    try:
        ip = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return not (ip.is_multicast or ip.is_unspecified or text == "255.255.255.255")
