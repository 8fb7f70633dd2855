"""The names that a provider claims in multicast DNS, and the records under them."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from phase.discovery.interfaces import Ip
from phase.discovery.mdns import wire
from phase.discovery.mdns.wire import META_NAME, SERVICE_NAME, Name, Record

#: Limit for one label, bytes.
MAX_LABEL = 63
#: Seconds that others may keep a record: one that names a host, and any other (RFC 6762, section 10).
HOST_TTL, OTHER_TTL = 120, 4500


class Offered(Protocol):
    """What is offered, as one instance of a service."""

    def label(self, suffix: str, *, short: bool) -> bytes:
        """The first label of the instance's name, at most `MAX_LABEL` bytes.

        Args:
            suffix: tells this machine's instances from others'.
            short: another one than without it: the first is taken.
        """

    def pairs(self, identity: str) -> list[str]:
        """What the TXT record says, `key=value` each."""


class Offer(NamedTuple):
    """A release that is offered."""

    channel: str
    arch: str
    version: int

    def label(self, suffix: str, *, short: bool) -> bytes:
        """See `Offered`."""
        label = f"phase-{self.channel}-{self.arch}-{suffix}".encode()
        if len(label) <= MAX_LABEL and not short:
            return label
        # The TXT record has the whole channel, and alone decides; this only has to be another for each.
        digest = hashlib.sha256(self.channel.encode()).hexdigest()[:12]
        return f"phase-{self.channel[:12]}-{digest}-{self.arch}-{suffix}".encode()[:MAX_LABEL]

    def pairs(self, identity: str) -> list[str]:
        """See `Offered`."""
        return [
            "txtvers=1",
            f"channel={self.channel}",
            f"arch={self.arch}",
            f"version={self.version}",
            f"id={identity}",
        ]


class Claims(NamedTuple):
    """All names that one provider claims, and their records.

    Attributes:
        host: name of the machine, for this purpose.
        port: TCP port that it serves on.
        instances: name and TXT data of each offer.
        service: what they are instances of.
    """

    host: Name
    port: int
    instances: tuple[tuple[Name, bytes], ...]
    service: Name = SERVICE_NAME

    @property
    def unique(self) -> frozenset[Name]:
        """The names that no other machine may have, folded."""
        return frozenset(wire.folded(each) for each in (self.host, *(name for name, _ in self.instances)))

    def pointers(self) -> list[Record]:
        """The records that all providers of the service share."""
        found = [
            Record(self.service, wire.PTR, wire.pack_name(name), OTHER_TTL) for name, _ in self.instances
        ]
        return [*found, Record(META_NAME, wire.PTR, wire.pack_name(self.service), OTHER_TTL)]

    def instance(self, name: Name) -> list[Record]:
        """SRV and TXT of one instance; `name` is folded."""
        return [
            record
            for one, txt in self.instances
            if wire.folded(one) == name
            for record in (
                Record(one, wire.SRV, wire.pack_srv(self.port, self.host), HOST_TTL, True),
                Record(one, wire.TXT, txt, OTHER_TTL, True),
            )
        ]

    def addresses(self, ips: Iterable[Ip]) -> list[Record]:
        """The records of the host's addresses, and of the types that it has."""
        found = [
            Record(self.host, wire.A if ip.version == 4 else wire.AAAA, ip.packed, HOST_TTL, True)
            for ip in ips
        ]
        kinds = {record.type for record in found}
        nsec = wire.pack_nsec(self.host, sorted(kinds))
        return [*found, Record(self.host, wire.NSEC, nsec, HOST_TTL, True)]

    def all(self, ips: Sequence[Ip]) -> list[Record]:
        """All records."""
        own = [record for name, _ in self.instances for record in self.instance(wire.folded(name))]
        return [*self.pointers(), *own, *self.addresses(ips)]


def claims(
    offers: Iterable[Offered],
    *,
    port: int,
    identity: str,
    attempt: int = 1,
    service: Name = SERVICE_NAME,
) -> Claims:
    """The names that a provider claims.

    Args:
        offers: what is offered, such as releases.
        port: TCP port that it serves on.
        identity: eight characters that tell this provider from others.
        attempt: 1, and one more each time that another has the names (RFC 6762, section 9).
        service: what they are instances of.
    """
    suffix = identity if attempt == 1 else f"{identity}-{attempt}"
    instances: dict[Name, tuple[Name, bytes]] = {}
    for offer in offers:
        name = (offer.label(suffix, short=False), *service)
        if wire.folded(name) in instances:
            # Channels may differ in upper and lower case only, names in DNS may not.
            name = (offer.label(suffix, short=True), *service)
        txt = wire.pack_txt(pair.encode() for pair in offer.pairs(identity))
        instances[wire.folded(name)] = name, txt
    host = f"phase-{suffix}".encode(), b"local"
    return Claims(host, port, tuple(instances.values()), service)
