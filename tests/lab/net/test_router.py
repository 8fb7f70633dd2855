"""A router by its frames: what comes in on one card, what goes out on another."""

import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MisuseError
from lab.net import datagram as ip
from lab.net.datagram import Flow
from lab.net.firewall import Rule
from lab.net.nat import FULL_CONE, SYMMETRIC, Nat
from lab.net.packet import ARP, ICMP, TCP, UDP, arp_reply, arp_request, checksum, ethernet, ipv4, parse, udp
from lab.net.router import Router
from lab.topology import Lab

INSIDE, OTHER, OUTSIDE, FAR = map(IPv4Address, ("10.77.0.10", "10.77.0.11", "10.77.1.10", "192.0.2.1"))
LAN, WAN = IPv4Interface("10.77.0.254/24"), IPv4Interface("10.77.1.254/24")
MAC = {address: b"\x02\0" + address.packed for address in (INSIDE, OTHER, OUTSIDE, FAR, LAN.ip, WAN.ip)}


class Box:
    """A router with machines that answer ARP on both sides."""

    def __init__(
        self,
        nat: Nat | None = None,
        rules: tuple[Rule, ...] = (),
        routes: dict[IPv4Network, IPv4Address] | None = None,
    ) -> None:
        self.now = 0.0
        self.router = Router("box", nat=nat, rules=rules, routes=routes, clock=lambda: self.now)
        self.sent: dict[str, list[bytes]] = {"lan": [], "wan": []}
        self.silent: set[IPv4Address] = set()
        for name, address in (("lan", LAN), ("wan", WAN)):
            self.router.plug(name, address, MAC[address.ip])
        for name in self.sent:
            self.router.interfaces[name].send = self.sent[name].append

    def put(self, name: str, datagram: bytes) -> dict[str, list[bytes]]:
        """Send a datagram to the router; what it sent on, after every question was answered."""
        card = self.router.interfaces[name]
        assert card(ethernet(card.mac, MAC[INSIDE], 0x0800, datagram)) == []
        self.answer()
        found = {name: [frame[14:] for frame in frames] for name, frames in self.sent.items()}
        for frames in self.sent.values():
            frames.clear()
        return found

    def answer(self) -> None:
        for name, frames in self.sent.items():
            for frame in list(frames):
                packet = parse(frame)
                if packet.kind == ARP:
                    frames.remove(frame)
                    asked = packet.destination
                    if asked in MAC and asked not in self.silent:
                        self.router.interfaces[name](arp_reply(MAC[asked], asked, frame))


def message(source: IPv4Address, destination: IPv4Address, port: int = 53, *, ttl: int = 64) -> bytes:
    return udp((source, 1000), (destination, port), b"payload", ttl=ttl)


def test_it_forwards_and_counts_down() -> None:
    box = Box()
    found = box.put("lan", message(INSIDE, OUTSIDE))
    assert found == {"lan": [], "wan": [ip.hop(message(INSIDE, OUTSIDE))]}
    card = box.router.interfaces["lan"]
    card(ethernet(card.mac, MAC[INSIDE], 0x0800, message(INSIDE, OUTSIDE)))
    (frame,) = box.sent["wan"]
    assert frame[:12] == MAC[OUTSIDE] + MAC[WAN.ip]


def test_frames_for_others_are_left_alone() -> None:
    box = Box()
    box.router.interfaces["lan"](ethernet(MAC[OTHER], MAC[INSIDE], 0x0800, message(INSIDE, OUTSIDE)))
    assert box.put("lan", message(INSIDE, IPv4Address("224.0.0.251"))) == {"lan": [], "wan": []}
    assert box.put("lan", message(INSIDE, IPv4Address("255.255.255.255"))) == {"lan": [], "wan": []}
    assert box.put("lan", message(INSIDE, IPv4Address("10.77.1.255"))) == {"lan": [], "wan": []}
    broken = bytearray(message(INSIDE, OUTSIDE))
    broken[8] = 9
    assert box.put("lan", bytes(broken)) == {"lan": [], "wan": []}
    assert box.router.dropped == {"malformed": 1, "broadcast": 1}


def test_it_answers_arp_for_itself_alone() -> None:
    box = Box()
    card = box.router.interfaces["lan"]
    card(arp_request(MAC[INSIDE], INSIDE, LAN.ip))
    (reply,) = box.sent["lan"]
    assert (reply[:6], reply[22:32]) == (MAC[INSIDE], card.mac + LAN.ip.packed)
    card(arp_request(MAC[INSIDE], INSIDE, OTHER))
    assert box.sent["lan"] == [reply]
    box.sent["lan"].clear()
    # Who asked is known, and need not be asked for.
    box.router.interfaces["wan"](ethernet(MAC[WAN.ip], MAC[OUTSIDE], 0x0800, message(OUTSIDE, INSIDE)))
    assert [parse(frame).kind for frame in box.sent["lan"]] == [0x0800]


def test_a_machine_with_a_new_card_is_found() -> None:
    box = Box()
    box.put("lan", message(INSIDE, OUTSIDE))
    box.router.interfaces["wan"](arp_request(b"\x02new!!"[:6], OUTSIDE, OTHER))
    card = box.router.interfaces["lan"]
    card(ethernet(card.mac, MAC[INSIDE], 0x0800, message(INSIDE, OUTSIDE)))
    assert box.sent["wan"][-1][:6] == b"\x02new!!"


def test_who_comes_too_far_is_told() -> None:
    box = Box()
    (said,) = box.put("lan", message(INSIDE, OUTSIDE, ttl=1))["lan"]
    assert (ip.addresses(said), said[20:22]) == ((LAN.ip, INSIDE), b"\x0b\0")
    assert ip.quoted(said) == Flow(UDP, INSIDE, 1000, OUTSIDE, 53)


def test_no_way_and_no_neighbour_are_told() -> None:
    box = Box()
    (said,) = box.put("lan", message(INSIDE, FAR))["lan"]
    assert said[20:22] == b"\x03\0"
    box.silent = {OUTSIDE}
    assert box.put("lan", message(INSIDE, OUTSIDE)) == {"lan": [], "wan": []}
    box.now = 2.0
    assert box.put("lan", message(INSIDE, OUTSIDE)) == {"lan": [], "wan": []}
    box.now = 3.0
    told = box.put("lan", message(INSIDE, OUTSIDE))["lan"]
    assert [said[20:22] for said in told] == [b"\x03\1"] * 3
    box.silent = set()
    assert box.put("lan", message(INSIDE, OUTSIDE))["wan"], "it asks again"
    assert box.router.dropped == {"no route": 1, "no neighbour": 3}


def test_what_waits_for_a_neighbour_is_bounded() -> None:
    box = Box()
    box.silent = {OUTSIDE}
    for _ in range(50):
        box.put("lan", message(INSIDE, OUTSIDE))
    box.silent, box.now = set(), 1.5
    assert len(box.put("lan", message(INSIDE, OUTSIDE))["wan"]) == 16


def test_long_datagrams_are_divided_or_refused() -> None:
    box = Box()
    box.router.interfaces["wan"].mtu = 600
    whole = udp((INSIDE, 1), (OUTSIDE, 2), bytes(1400))
    pieces = box.put("lan", whole)["wan"]
    assert len(pieces) == 3
    reassembly = ip.Reassembly(lambda: 0.0)
    assert [reassembly.add(piece) for piece in pieces][-1] == ip.hop(whole)
    fixed = ipv4(INSIDE, OUTSIDE, UDP, bytes(1400))
    fixed = (
        fixed[:6]
        + b"\x40\0"
        + fixed[8:10]
        + struct.pack("!H", fixed[10] * 256 + fixed[11] - 0x4000)
        + fixed[12:]
    )
    (said,) = box.put("lan", fixed)["lan"]
    assert (said[20:22], struct.unpack("!I", said[24:28])) == (b"\x03\x04", (600,))


def test_it_answers_for_itself() -> None:
    box = Box()
    asked = ipv4(INSIDE, LAN.ip, ICMP, b"\x08\0\xf7\xff" + bytes(4))
    (answer,) = box.put("lan", asked)["lan"]
    assert (ip.addresses(answer), answer[20]) == ((LAN.ip, INSIDE), 0)
    (refused,) = box.put("lan", message(INSIDE, WAN.ip))["lan"]
    assert refused[20:22] == b"\x03\x03"
    (reset,) = box.put(
        "lan", ipv4(INSIDE, LAN.ip, TCP, struct.pack("!HHIIBBHHH", 9, 80, 1, 0, 0x50, 2, 0, 0, 0))
    )["lan"]
    assert reset[33] == 0x14


def test_the_longest_route_counts() -> None:
    routes = {IPv4Network("0.0.0.0/0"): OUTSIDE, IPv4Network("192.0.2.0/24"): OTHER}
    box = Box(routes=routes)
    assert box.put("wan", message(OUTSIDE, FAR)) == {"lan": [ip.hop(message(OUTSIDE, FAR))], "wan": []}
    there = IPv4Address("203.0.113.1")
    assert box.put("lan", message(INSIDE, there)) == {"lan": [], "wan": [ip.hop(message(INSIDE, there))]}


def flow_out(box: Box, datagram: bytes) -> Flow:
    (passed,) = box.put("lan", datagram)["wan"]
    flow = ip.flow_of(passed)
    assert flow is not None
    return flow


def test_nat_hides_and_lets_answers_in() -> None:
    box = Box(FULL_CONE)
    seen = flow_out(box, message(INSIDE, OUTSIDE))
    assert seen == Flow(UDP, WAN.ip, 40_000, OUTSIDE, 53)
    (answer,) = box.put("wan", udp((OUTSIDE, 53), (WAN.ip, 40_000), b"yes"))["lan"]
    assert ip.flow_of(answer) == Flow(UDP, OUTSIDE, 53, INSIDE, 1000)
    assert answer[28:] == b"yes"
    stranger = udp((IPv4Address("10.77.1.99"), 7), (WAN.ip, 40_000), b"")
    assert box.put("wan", stranger)["lan"], "a full cone lets anybody in"
    assert box.put("wan", message(OUTSIDE, INSIDE)) == {"lan": [], "wan": []}
    assert box.put("wan", message(OUTSIDE, WAN.ip, 9)) == {"lan": [], "wan": []}
    assert box.router.dropped == {"unmapped": 2}
    box.router.restart()
    assert box.put("wan", stranger) == {"lan": [], "wan": []}


def test_symmetric_nat_shows_another_port_to_everybody() -> None:
    box = Box(SYMMETRIC)
    ports = [flow_out(box, message(INSIDE, OUTSIDE, port)).source_port for port in (53, 54, 53)]
    assert ports == [40_000, 40_001, 40_000]
    assert box.put("wan", udp((OUTSIDE, 54), (WAN.ip, 40_000), b"")) == {"lan": [], "wan": []}
    assert box.put("wan", udp((OUTSIDE, 54), (WAN.ip, 40_001), b""))["lan"]


def test_errors_pass_a_nat_about_the_flow_that_each_side_knows() -> None:
    box = Box(FULL_CONE)
    (passed,) = box.put("lan", message(INSIDE, OUTSIDE))["wan"]
    said = ip.error(passed, OUTSIDE, 3, 3)
    assert said is not None
    (told,) = box.put("wan", said)["lan"]
    assert ip.addresses(told) == (OUTSIDE, INSIDE)
    assert ip.quoted(told) == Flow(UDP, INSIDE, 1000, OUTSIDE, 53)
    (inner,) = box.put("wan", udp((OUTSIDE, 53), (WAN.ip, 40_000), b""))["lan"]
    said = ip.error(inner, INSIDE, 3, 3)
    assert said is not None
    (told,) = box.put("lan", said)["wan"]
    assert ip.addresses(told) == (WAN.ip, OUTSIDE)
    assert ip.quoted(told) == Flow(UDP, OUTSIDE, 53, WAN.ip, 40_000)
    (own,) = box.put("wan", udp((OUTSIDE, 53), (WAN.ip, 40_000), b"", ttl=1))["wan"]
    assert ip.quoted(own) == Flow(UDP, OUTSIDE, 53, WAN.ip, 40_000), "its sender knows no other"


def test_fragments_pass_a_nat() -> None:
    box = Box(SYMMETRIC)
    whole = udp((INSIDE, 1000), (OUTSIDE, 53), bytes(3000))
    found = [frame for piece in ip.fragments(whole, 1500) for frame in box.put("lan", piece)["wan"]]
    assert len(found) == 3
    reassembly = ip.Reassembly(lambda: 0.0)
    together = [reassembly.add(piece) for piece in found][-1]
    assert together is not None
    assert ip.flow_of(together) == Flow(UDP, WAN.ip, 40_000, OUTSIDE, 53)


def test_a_full_table_and_other_protocols_do_not_pass_a_nat() -> None:
    box = Box(Nat(ports=range(100, 101)))
    assert flow_out(box, message(INSIDE, OUTSIDE)).source_port == 100
    assert box.put("lan", message(OTHER, OUTSIDE)) == {"lan": [], "wan": []}
    assert box.put("lan", ipv4(INSIDE, OUTSIDE, 47, bytes(8))) == {"lan": [], "wan": []}
    assert box.router.dropped == {"untranslated": 2}


def test_two_machines_inside_meet_at_the_outside() -> None:
    box = Box(FULL_CONE)
    flow_out(box, message(OTHER, OUTSIDE))
    (met,) = box.put("lan", udp((INSIDE, 7), (WAN.ip, 40_000), b""))["lan"]
    assert ip.flow_of(met) == Flow(UDP, WAN.ip, 40_001, OTHER, 1000)


def test_a_firewall_drops_and_rejects() -> None:
    rules = (Rule("drop", protocol=UDP, port=53), Rule("reject", protocol=UDP), Rule("reject", protocol=TCP))
    box = Box(rules=rules)
    assert box.put("lan", message(INSIDE, OUTSIDE, 53)) == {"lan": [], "wan": []}
    (said,) = box.put("lan", message(INSIDE, OUTSIDE, 54))["lan"]
    assert said[20:22] == b"\x03\x0d"
    (said,) = box.put(
        "lan", ipv4(INSIDE, OUTSIDE, TCP, struct.pack("!HHIIBBHHH", 9, 80, 1, 0, 0x50, 2, 0, 0, 0))
    )["lan"]
    assert ip.flow_of(said) == Flow(TCP, OUTSIDE, 80, INSIDE, 9)
    assert box.router.dropped == {"drop": 1, "reject": 2}


def test_a_firewall_behind_a_nat_knows_addresses_inside() -> None:
    box = Box(FULL_CONE, (Rule("drop", from_segment="wan", protocol=UDP, port=1000),))
    seen = flow_out(box, message(INSIDE, OUTSIDE))
    assert box.put("wan", udp((OUTSIDE, 53), (WAN.ip, seen.source_port), b""))["lan"]
    assert box.put("wan", udp((OUTSIDE, 99), (WAN.ip, seen.source_port), b"")) == {"lan": [], "wan": []}


@given(
    st.binary(max_size=120),
    st.sampled_from([b"\x08\0\x45", b"\x08\x06\0\1\x08\0\6\4", b""]),
    st.sampled_from([None, FULL_CONE, SYMMETRIC]),
)
def test_no_frame_breaks_it(rest: bytes, kind: bytes, nat: Nat | None) -> None:
    box = Box(nat, (Rule("reject", protocol=UDP, port=53),))
    for card in box.router.interfaces.values():
        card(card.mac + MAC[INSIDE] + kind + rest)


@given(
    st.binary(max_size=120),
    st.sampled_from([ICMP, TCP, UDP, 47]),
    st.sampled_from([INSIDE, OUTSIDE, LAN.ip, WAN.ip, FAR]),
    st.sampled_from([INSIDE, OUTSIDE, LAN.ip, WAN.ip, FAR]),
    st.integers(0, 65_535),
    st.sampled_from([None, FULL_CONE, SYMMETRIC]),
)
def test_no_datagram_breaks_it(
    body: bytes, protocol: int, source: IPv4Address, destination: IPv4Address, place: int, nat: Nat | None
) -> None:
    box = Box(nat, (Rule("reject", protocol=UDP, port=53),))
    datagram = next(ip.fragments(ipv4(source, destination, protocol, body), 1500))
    head = datagram[:6] + struct.pack("!H", place) + datagram[8:10] + b"\0\0" + datagram[12:20]
    datagram = head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body
    for name in ("lan", "wan"):
        box.put(name, datagram)


def test_a_lab_declares_it() -> None:
    with Lab() as lab:
        lan, wan, far = (lab.segment(name) for name in ("lan", "wan", "far"))
        first = lab.router("first", lan, wan, nat=FULL_CONE)
        second = lab.router("second", wan, far, routes={lan.network: first.address("wan")})
        assert first.address("lan") == IPv4Address("10.77.0.254")
        assert (first.address("wan"), second.address("wan")) == (
            IPv4Address("10.77.1.254"),
            IPv4Address("10.77.1.253"),
        )
        assert lan.dhcp.options == {3: first.address("lan").packed}
        assert wan.dhcp.options == {3: second.address("wan").packed}, "not the way in of a NAT"
        assert lan.link("first").received == 0
        with pytest.raises(MisuseError, match="already"):
            lab.router("first", lan, wan)
        with pytest.raises(MisuseError, match="two different"):
            lab.router("third", lan)
        with pytest.raises(MisuseError, match="two different"):
            lab.router("third", lan, lan)
        with pytest.raises(MisuseError, match="is not on one of its segments"):
            lab.router("third", lan, wan, routes={far.network: FAR})
        with pytest.raises(MisuseError, match="is not on"):
            first.address("far")
