import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.net.dhcp import DhcpFaults, DhcpServer

MAC = b"\x52\x54\0\1\2\3"
NETWORK = IPv4Network("10.77.3.0/24")


def request(kind: int, mac: bytes = MAC, options: bytes = b"", xid: bytes = b"abcd") -> bytes:
    body = struct.pack("!BBBB4sHH16s16s192s4s", 1, 1, 6, 0, xid, 0, 0, b"", mac, b"", b"\x63\x82\x53\x63")
    body += bytes([53, 1, kind]) + options + b"\xff"
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    return b"\xff" * 6 + mac + b"\x08\0" + ip + udp


def options(frame: bytes) -> dict[int, bytes]:
    data, found = frame[14 + 20 + 8 + 240 :], {}
    while data[0] != 255:
        found[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return found


def given_address(frame: bytes) -> IPv4Address:
    return IPv4Address(frame[14 + 20 + 8 + 16 :][:4])


def test_discover_is_offered_and_request_acknowledged() -> None:
    server = DhcpServer(NETWORK)
    for kind, answer in ((1, 2), (3, 5)):
        (reply,) = server(request(kind))
        assert given_address(reply) == IPv4Address("10.77.3.10") == server.lease_of(MAC)
        assert reply[14 + 20 + 8 + 4 :][:4] == b"abcd"
        assert reply[14 + 20 + 8 + 28 :][:6] == MAC
        told = options(reply)
        assert told[53] == bytes([answer])
        assert told[54] == server.address.packed
        assert told[1] == b"\xff\xff\xff\0"
        assert 3 not in told, "a default route would lead out of the segment"
        assert 6 not in told


def test_the_headers_hold() -> None:
    (reply,) = DhcpServer(NETWORK)(request(1))
    header, udp = reply[14:34], reply[34:]
    assert sum(struct.unpack("!10H", header)) % 0xFFFF == 0
    assert struct.unpack("!H", header[2:4])[0] == len(reply) - 14
    assert struct.unpack("!HHH", udp[:6]) == (67, 68, len(udp))


def test_everybody_has_an_own_address_and_keeps_it() -> None:
    server = DhcpServer(NETWORK)
    macs = [b"\x52\x54\0\0\0" + bytes([number]) for number in range(20)]
    addresses = [given_address(server(request(1, mac))[0]) for mac in macs]
    assert len(set(addresses)) == 20
    assert addresses == [given_address(server(request(3, mac))[0]) for mac in macs]


def test_who_asks_another_server_is_left_alone() -> None:
    server = DhcpServer(NETWORK)
    assert server(request(3, options=b"\x36\x04" + server.address.packed))
    assert server(request(3, options=b"\x36\x04\x0a\0\0\1")) == []


def test_other_messages_are_left_alone() -> None:
    for kind in (4, 7, 8):
        assert DhcpServer(NETWORK)(request(kind)) == []


def test_a_declined_address_is_given_to_nobody_again() -> None:
    server = DhcpServer(NETWORK)
    first, other = server.lease_of(MAC), server.lease_of(b"\x52\x54\0\0\0\1")
    assert server(request(4, options=b"\x32\x04" + other.packed)) == [], "another machine's stays"
    assert server.declined == set()
    assert server(request(4, options=b"\x32\x04" + first.packed)) == []
    assert server.declined == {first}
    again = given_address(server(request(1))[0])
    assert again not in (first, other)
    assert server.lease_of(b"\x52\x54\0\0\0\2") not in (first, other, again)


def test_a_full_segment_keeps_silent() -> None:
    server = DhcpServer(IPv4Network("10.0.0.0/28"))
    answers = [server(request(1, b"\x52\x54\0\0\0" + bytes([number]))) for number in range(20)]
    assert [bool(answer) for answer in answers] == [True] * 5 + [False] * 15
    assert all(given_address(answer[0]) in server.network for answer in answers if answer)
    with pytest.raises(ValueError, match="no free address"):
        server.lease_of(b"\x52\x54\0\0\1\0")


def test_answers_arp_for_itself_alone() -> None:
    server = DhcpServer(NETWORK)
    ask = b"\xff" * 6 + MAC + b"\x08\x06\0\1\x08\0\6\4\0\1" + MAC + b"\x0a\x4d\3\x0a" + bytes(6)
    (reply,) = server(ask + server.address.packed)
    assert reply[:12] == MAC + server.mac
    assert reply[20:22] == b"\0\2"
    assert reply[22:32] == server.mac + server.address.packed
    assert reply[32:42] == MAC + b"\x0a\x4d\3\x0a"
    assert server(ask + b"\x0a\x4d\3\x63") == []


@given(st.binary(max_size=600), st.sampled_from([b"\x08\0", b"\x08\x06", b"\x86\xdd", b""]))
def test_no_frame_breaks_it(data: bytes, kind: bytes) -> None:
    DhcpServer(NETWORK)(b"\xff" * 6 + MAC + kind + data)


@given(st.data())
def test_no_torn_request_breaks_it(data: st.DataObject) -> None:
    frame = bytearray(request(1, options=b"\x37\x03\1\3\6\x0c\x04name"))
    for _ in range(data.draw(st.integers(0, 5))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    for answer in DhcpServer(NETWORK)(bytes(frame[: data.draw(st.integers(0, len(frame)))])):
        assert len(answer) > 14


def test_faults_are_seen_and_end() -> None:
    server = DhcpServer(NETWORK)
    server.faults = DhcpFaults(silent=True)
    assert server(request(1)) == []
    server.faults = DhcpFaults(nak=True)
    assert options(server(request(1))[0])[53] == b"\2"
    (refusal,) = server(request(3))
    assert options(refusal) == {53: b"\6", 54: server.address.packed}
    assert given_address(refusal) == IPv4Address("0.0.0.0")
    wrong_address = IPv4Address("192.0.2.7")
    server.faults = DhcpFaults(address=wrong_address, lease=5, options={3: b"\x0a\0\0\1", 28: b""})
    (wrong,) = server(request(3))
    assert given_address(wrong) == IPv4Address("192.0.2.7")
    told = options(wrong)
    assert (told[51], told[3]) == (b"\0\0\0\5", b"\x0a\0\0\1")
    assert 28 not in told
    server.faults = DhcpFaults()
    assert given_address(server(request(3))[0]) == server.lease_of(MAC)
