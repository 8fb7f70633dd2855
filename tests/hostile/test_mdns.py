"""The packets of the liar in multicast DNS are what their names say."""

import itertools
import struct

from zeroconf import DNSIncoming, DNSOutgoing, DNSPointer, DNSQuestion

from fixtures.hostile import mdns
from phase.discovery.records import SERVICE


def test_a_flood_never_names_a_provider_twice() -> None:
    numbers = itertools.count()
    seen: set[str] = set()
    for _ in range(3):
        read = DNSIncoming(mdns.flood(numbers))
        assert read.valid
        names = {answer.alias for answer in read.answers() if isinstance(answer, DNSPointer)}
        assert len(names) == 60
        assert not names & seen
        seen |= names


def test_every_name_that_is_asked_for_is_taken() -> None:
    name = f"phase-stable-x86_64-0123abcd.{SERVICE}"
    asked = DNSOutgoing(0)
    asked.add_question(DNSQuestion(name, 255, 1))
    claim = mdns.conflict(asked.packets()[0])
    assert claim is not None
    (answer,) = DNSIncoming(claim).answers()
    assert (answer.name, answer.ttl) == (name, (1 << 31) - 1)


def test_only_instances_of_the_service_are_claimed() -> None:
    for name in (SERVICE, "printer._ipp._tcp.local.", "local."):
        asked = DNSOutgoing(0)
        asked.add_question(DNSQuestion(name, 12, 1))
        assert mdns.conflict(asked.packets()[0]) is None
    assert mdns.conflict(b"\0" * 13) is None
    assert mdns.conflict(mdns.flood(itertools.count())) is None


def test_every_broken_record_is_one_packet() -> None:
    packets = mdns.broken()
    assert len(set(packets.values())) == len(packets)
    assert max(map(len, packets.values())) < 1472
    assert struct.unpack("!H", packets["more answers than there are"][6:8]) == (0xFFFF,)
