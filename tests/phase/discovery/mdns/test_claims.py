import ipaddress

import pytest

from phase.discovery.mdns import wire
from phase.discovery.mdns.claims import MAX_LABEL, Offer, claims
from phase.discovery.mdns.link import answers_to
from phase.discovery.mdns.wire import META_NAME, SERVICE_NAME, Question
from tests.phase.discovery.mdns.packets import instance

IPS = (ipaddress.ip_address("192.0.2.1"),)
ONE = claims([Offer("stable", "x86_64", 7)], port=8080, identity="deadbeef")
NAME = instance(b"phase-stable-x86_64-deadbeef")


def test_names_and_their_successors() -> None:
    assert [name for name, _ in ONE.instances] == [NAME]
    assert ONE.host == (b"phase-deadbeef", b"local")
    again = claims([Offer("stable", "x86_64", 7)], port=8080, identity="deadbeef", attempt=2)
    assert [name for name, _ in again.instances] == [instance(b"phase-stable-x86_64-deadbeef-2")]
    assert again.host == (b"phase-deadbeef-2", b"local")
    # Who looks tells providers apart by the TXT record, which stays.
    assert again.instances[0][1] == ONE.instances[0][1]


def test_long_channels_and_those_that_differ_in_case_have_names_of_their_own() -> None:
    channels = ["c" * 63 + "1", "c" * 63 + "2", "stable", "Stable", "STABLE"]
    found = claims([Offer(channel, "x86_64", 1) for channel in channels], port=1, identity="deadbeef")
    assert len(found.unique) == len(channels) + 1
    assert all(len(name[0]) <= MAX_LABEL for name, _ in found.instances)
    told = {wire.read_txt(txt)[b"channel"] for _, txt in found.instances}
    assert told == {channel.encode() for channel in channels}
    # The last bytes tell two providers apart.
    assert all(name[0].endswith(b"-deadbeef") for name, _ in found.instances)


@pytest.mark.parametrize(
    ("name", "kind", "answers", "more"),
    [
        (SERVICE_NAME, wire.PTR, [wire.PTR], {wire.SRV, wire.TXT, wire.A, wire.NSEC}),
        (META_NAME, wire.PTR, [wire.PTR], set()),
        (NAME, wire.ANY, [wire.SRV, wire.TXT], {wire.A, wire.NSEC}),
        (tuple(label.upper() for label in NAME), wire.TXT, [wire.TXT], set()),
        (ONE.host, wire.A, [wire.A], {wire.NSEC}),
        # There is none: said at once.
        (ONE.host, wire.AAAA, [wire.NSEC], {wire.A}),
        (instance(b"other"), wire.ANY, [], set()),
        ((), wire.ANY, [], set()),
    ],
)
def test_answers(name: wire.Name, kind: int, answers: list[int], more: set[int]) -> None:
    found, additional = answers_to(Question(name, kind), ONE, IPS)
    assert [each.type for each in found] == answers
    assert {each.type for each in additional} == more
