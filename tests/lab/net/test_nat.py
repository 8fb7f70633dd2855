"""The kinds of NAT, told apart as RFC 4787 does: by what others see, and by whom they let in."""

from ipaddress import IPv4Address

import pytest

from lab.net.datagram import Flow
from lab.net.nat import FULL_CONE, PORT_RESTRICTED_CONE, RESTRICTED_CONE, SYMMETRIC, Nat, Translator
from lab.net.packet import ICMP, TCP, UDP

BOX = IPv4Address("10.77.1.254")
INSIDE = IPv4Address("10.77.0.10")
ONE, TWO = (IPv4Address(f"10.77.1.{number}") for number in (10, 11))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def out(to: IPv4Address, port: int = 80, *, protocol: int = UDP, source_port: int = 5000) -> Flow:
    return Flow(protocol, INSIDE, source_port, to, port)


def outside_port(translator: Translator, flow: Flow) -> int:
    seen = translator.outward(flow)
    assert seen is not None
    assert seen.source == BOX
    assert (seen.destination, seen.destination_port) == (flow.destination, flow.destination_port)
    return seen.source_port


KINDS = {
    "full-cone": (FULL_CONE, 1, (True, True, True)),
    "restricted": (RESTRICTED_CONE, 1, (True, True, False)),
    "port-restricted": (PORT_RESTRICTED_CONE, 1, (True, False, False)),
    "symmetric": (SYMMETRIC, 3, (True, False, False)),
}


@pytest.mark.parametrize(("nat", "ports", "reached"), KINDS.values(), ids=KINDS)
def test_each_kind(nat: Nat, ports: int, reached: tuple[bool, bool, bool]) -> None:
    translator = Translator(nat, BOX, Clock())
    mapped = outside_port(translator, out(ONE))
    answers = [(ONE, 80), (ONE, 81), (TWO, 80)]
    found = [translator.inward(Flow(UDP, *sender, BOX, mapped)) for sender in answers]
    assert [flow is not None for flow in found] == list(reached)
    assert found[0] == Flow(UDP, ONE, 80, INSIDE, 5000)
    assert len({outside_port(translator, out(*to)) for to in answers}) == ports
    assert outside_port(translator, out(ONE)) == mapped, "a mapping stays"


def test_protocols_and_machines_have_mappings_of_their_own() -> None:
    translator = Translator(FULL_CONE, BOX, Clock())
    mapped = outside_port(translator, out(ONE))
    assert translator.inward(Flow(TCP, ONE, 80, BOX, mapped)) is None
    other = translator.outward(out(ONE)._replace(source=IPv4Address("10.77.0.11")))
    assert other is not None
    assert other.source_port != mapped
    assert translator.inward(Flow(UDP, ONE, 80, TWO, mapped)) is None
    assert translator.inward(Flow(UDP, ONE, 80, BOX, mapped + 9)) is None


@pytest.mark.parametrize("nat", [FULL_CONE, SYMMETRIC])
def test_an_echo_comes_back(nat: Nat) -> None:
    translator = Translator(nat, BOX, Clock())
    flow = Flow(ICMP, INSIDE, 55, ONE, 55)
    seen = translator.outward(flow)
    assert seen is not None
    assert seen.source_port == seen.destination_port == nat.ports[0]
    assert translator.inward(seen.back()) == flow.back()


def test_a_mapping_lasts_as_long_as_it_sends() -> None:
    clock = Clock()
    translator = Translator(FULL_CONE, BOX, clock)
    mapped = outside_port(translator, out(ONE))
    for clock.now in (100.0, 200.0):
        assert outside_port(translator, out(ONE)) == mapped
    clock.now = 319.0
    assert translator.inward(Flow(UDP, ONE, 80, BOX, mapped)) is not None
    clock.now = 320.0
    assert translator.inward(Flow(UDP, ONE, 80, BOX, mapped)) is None
    assert translator.mappings == []
    assert outside_port(translator, out(ONE)) != mapped


def test_there_are_no_more_mappings_than_ports() -> None:
    clock = Clock()
    translator = Translator(Nat(ports=range(100, 103)), BOX, clock)
    assert [outside_port(translator, out(ONE, source_port=n)) for n in range(3)] == [100, 101, 102]
    assert translator.outward(out(ONE, source_port=3)) is None
    assert outside_port(translator, out(ONE, protocol=TCP)) == 100
    assert len(translator.mappings) == 4
    clock.now = 500.0
    assert outside_port(translator, out(ONE, source_port=3)) == 100
    assert [each.port for each in translator.mappings] == [5000, 3]


def test_other_ends_are_remembered_to_a_bound() -> None:
    translator = Translator(PORT_RESTRICTED_CONE, BOX, Clock())
    for port in range(2000):
        mapped = outside_port(translator, out(ONE, port))
    reached = [translator.inward(Flow(UDP, ONE, port, BOX, mapped)) is not None for port in range(2000)]
    assert reached == [False] * 976 + [True] * 1024


def test_a_machine_inside_reaches_another_by_its_outside() -> None:
    translator = Translator(FULL_CONE, BOX, Clock())
    other = IPv4Address("10.77.0.11")
    mapped = outside_port(translator, out(ONE)._replace(source=other))
    seen = translator.hairpin(out(BOX, mapped))
    assert seen is not None
    assert (seen.source, seen.destination, seen.destination_port) == (BOX, other, 5000)
    assert translator.hairpin(out(BOX, 9)) is None
