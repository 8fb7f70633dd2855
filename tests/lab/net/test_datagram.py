"""Datagrams: what is made of them is checked as a receiver would, by whole checksums."""

import struct
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from lab.net import datagram as ip
from lab.net.datagram import Flow
from lab.net.packet import ICMP, TCP, UDP, checksum, ipv4

A, B, C = (IPv4Address(f"10.0.{number}.1") for number in (1, 2, 3))
PAYLOAD = b"some payload, of an odd length."


def holds(datagram: bytes) -> bool:
    """Whether every checksum in it is right."""
    header = (datagram[0] & 15) * 4
    body = datagram[header:]
    pseudo = b""
    if datagram[9] != ICMP:
        pseudo = datagram[12:20] + struct.pack("!HH", datagram[9], len(body))
    empty = datagram[9] == UDP and body[6:8] == b"\0\0"
    return not checksum(datagram[:header]) and (empty or not checksum(pseudo + body))


def summed(datagram: bytes, at: int) -> bytes:
    """The datagram with its inner checksum at this place set right."""
    body = datagram[20:]
    pseudo = b"" if datagram[9] == ICMP else datagram[12:20] + struct.pack("!HH", datagram[9], len(body))
    at += 20
    return datagram[:at] + checksum(pseudo + body).to_bytes(2, "big") + datagram[at + 2 :]


def udp(source: IPv4Address = A, destination: IPv4Address = B, payload: bytes = PAYLOAD) -> bytes:
    head = struct.pack("!HHHH", 1000, 2000, 8 + len(payload), 0)
    return summed(ipv4(source, destination, UDP, head + payload), 6)


def tcp(flags: int = 2, payload: bytes = PAYLOAD, acknowledged: int = 0) -> bytes:
    head = struct.pack("!HHIIBBHHH", 1000, 80, 77, acknowledged, 0x50, flags, 0, 0, 0)
    return summed(ipv4(A, B, TCP, head + payload), 16)


def echo(kind: int = 8) -> bytes:
    return summed(ipv4(A, B, ICMP, struct.pack("!BBHHH", kind, 0, 0, 55, 1) + PAYLOAD), 2)


ALL = (udp(), tcp(), echo())


def test_flows_are_told() -> None:
    flow = Flow(UDP, A, 1000, B, 2000)
    assert ip.flow_of(udp()) == flow
    assert flow.back() == Flow(UDP, B, 2000, A, 1000)
    assert ip.flow_of(tcp()) == Flow(TCP, A, 1000, B, 80)
    assert ip.flow_of(echo()) == Flow(ICMP, A, 55, B, 55)
    assert ip.flow_of(ipv4(A, B, 47, bytes(20))) is None
    assert ip.flow_of(ip.error(udp(), C, 11, 0) or b"") is None


def test_who_changes_addresses_and_ports_keeps_the_checksums() -> None:
    for datagram in ALL:
        flow = Flow(datagram[9], C, 4321, IPv4Address("192.0.2.255"), 4321)
        changed = ip.redirected(datagram, flow)
        assert holds(datagram)
        assert holds(changed)
        assert ip.flow_of(changed) == flow
        assert changed[-len(PAYLOAD) :] == PAYLOAD


def test_udp_without_a_checksum_stays_without() -> None:
    bare = ipv4(A, B, UDP, struct.pack("!HHHH", 1, 2, 8, 0))
    changed = ip.redirected(bare, Flow(UDP, C, 3, B, 4))
    assert changed[26:28] == b"\0\0"
    assert not checksum(changed[:20])


def test_each_router_counts_down() -> None:
    assert ip.hop(udp())[8] == 63
    assert holds(ip.hop(udp()))


def test_a_frame_with_a_broken_header_has_no_datagram() -> None:
    frame = bytes(12) + b"\x08\0" + udp()
    assert ip.checked(frame + b"padding") == udp()
    for place in range(14, 34):
        assert ip.checked(frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]) is None
    assert ip.checked(frame[:-1]) is None


def test_fragments_are_put_together_in_any_order() -> None:
    whole = udp(payload=bytes(range(256)) * 20)
    pieces = list(ip.fragments(whole, 1300))
    assert len(pieces) == 5
    assert all(len(piece) <= 1300 and not checksum(piece[:20]) and ip.is_fragment(piece) for piece in pieces)
    for order in (pieces, pieces[::-1], pieces[2:] + pieces[:2]):
        reassembly = ip.Reassembly(lambda: 0.0)
        *early, last = (reassembly.add(piece) for piece in order)
        assert early == [None] * 4
        assert last == whole
    finer = [part for piece in pieces for part in ip.fragments(piece, 500)]
    reassembly = ip.Reassembly(lambda: 0.0)
    assert [each for piece in finer if (each := reassembly.add(piece))] == [whole]
    assert list(ip.fragments(whole, len(whole))) == [whole]


def test_reassembly_forgets_and_is_bounded() -> None:
    time = 0.0
    reassembly = ip.Reassembly(lambda: time)
    pieces = list(ip.fragments(udp(payload=bytes(2000)), 1500))
    assert reassembly.add(pieces[0]) is None
    time = 31.0
    assert reassembly.add(pieces[1]) is None
    for number in range(100):
        other = pieces[0][:4] + struct.pack("!H", number + 1) + pieces[0][6:]
        assert reassembly.add(other) is None
    assert reassembly.add(pieces[0]) is not None, "what had begun is finished"
    assert reassembly.add(pieces[0]) is None
    time = 100.0
    assert reassembly.add(pieces[1]) is None
    assert reassembly.add(pieces[0]) is not None


def test_errors_quote_and_are_read() -> None:
    for datagram in ALL:
        said = ip.error(datagram, C, 3, 4, 1280)
        assert said is not None
        assert holds(said)
        assert (ip.addresses(said), ip.icmp_type(said)) == ((C, A), 3)
        assert struct.unpack("!I", said[24:28]) == (1280,)
        assert said[28:] == datagram
        assert ip.quoted(said) == ip.flow_of(datagram)
    assert ip.quoted(udp()) is None


def test_nobody_is_told_of_an_error_about_an_error_or_a_group() -> None:
    said = ip.error(udp(), C, 11, 0)
    assert said is not None
    assert ip.error(said, C, 11, 0) is None
    assert ip.error(udp(destination=IPv4Address("224.0.0.251")), C, 11, 0) is None
    assert ip.error(udp(source=IPv4Address("0.0.0.0")), C, 11, 0) is None
    later = list(ip.fragments(udp(payload=bytes(2000)), 1500))[1]
    assert ip.error(later, C, 11, 0) is None


def test_an_error_is_passed_on_about_the_flow_that_its_receiver_knows() -> None:
    for datagram in ALL:
        said = ip.error(datagram, C, 11, 0)
        assert said is not None
        flow = Flow(datagram[9], B, 7, C, 7)
        passed = ip.requoted(said, A, B, flow)
        assert holds(passed)
        assert ip.addresses(passed) == (A, B)
        assert ip.quoted(passed) == flow
        assert holds(passed[28:])


def test_a_reset_answers_a_segment() -> None:
    answer = ip.reset(tcp())
    assert answer is not None
    assert holds(answer)
    assert ip.flow_of(answer) == Flow(TCP, B, 80, A, 1000)
    assert struct.unpack("!IIBB", answer[24:34]) == (0, 77 + 1 + len(PAYLOAD), 0x50, 0x14)
    answer = ip.reset(tcp(flags=0x10, acknowledged=99))
    assert answer is not None
    assert struct.unpack("!IIBB", answer[24:34]) == (99, 0, 0x50, 0x04)
    assert ip.reset(answer) is None


def test_an_echo_is_answered() -> None:
    answer = ip.echo_reply(echo())
    assert holds(answer)
    assert answer == ip.redirected(echo(0), Flow(ICMP, B, 55, A, 55))


@given(st.binary(min_size=8, max_size=120), st.sampled_from([ICMP, TCP, UDP, 47]), st.integers(0, 65535))
def test_no_body_breaks_them(body: bytes, protocol: int, place: int) -> None:
    datagram = ipv4(A, B, protocol, body)
    datagram = datagram[:6] + struct.pack("!H", place) + datagram[8:]
    flow = ip.flow_of(datagram)
    if flow is not None:
        assert ip.redirected(ip.redirected(datagram, flow.back()), flow)[20:24] == datagram[20:24]
    about = ip.quoted(datagram)
    if about is not None:
        ip.requoted(datagram, A, C, about.back())
    ip.error(datagram, C, 11, 0)
    ip.reset(datagram)
    ip.Reassembly(lambda: 0.0).add(datagram)
    assert sum(len(piece) - 20 for piece in ip.fragments(datagram, 68)) == len(body)
