import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MisuseError
from lab.net.dns import DnsServer, Fault
from lab.net.packet import UDP, parse

ADDRESS = IPv4Address("10.77.0.3")
MAC = b"\x52\x54\0\0\0\1"


def query(name: str, kind: int = 1, *, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@pytest.fixture
def server() -> DnsServer:
    made = DnsServer(ADDRESS)
    made.add("host.lab", "A", "10.77.0.10")
    made.add("host.lab", "AAAA", "fd00::1")
    made.add("_x._tcp.lab", "SRV", "1 2 8080 host.lab")
    made.add("host.lab", "TXT", "channel=stable")
    return made


def told(server: DnsServer, name: str, kind: int) -> tuple[int, bytes]:
    """The code of the answer, and the data of its only record."""
    asked = query(name, kind)
    answer = server.answer(asked)
    assert answer is not None
    assert answer[:2] == asked[:2]
    assert answer[12 : len(asked)] == asked[12:]
    return answer[3] & 15, answer[len(asked) + 12 :]


def test_each_kind_is_answered(server: DnsServer) -> None:
    assert told(server, "host.lab", 1) == (0, b"\x0a\x4d\0\x0a")
    assert told(server, "HOST.lab", 28) == (0, b"\xfd" + bytes(14) + b"\1")
    assert told(server, "host.lab", 16) == (0, b"\x0echannel=stable")
    assert told(server, "_x._tcp.lab", 33) == (0, b"\0\1\0\2\x1f\x90\x04host\x03lab\0")
    assert told(server, "host.lab", 33) == (0, b"")
    assert told(server, "nobody.lab", 1) == (3, b"")
    assert server.asked[0] == "host.lab"


@pytest.mark.parametrize(("fault", "number", "code"), [("servfail", 7, 2), ("wrong-id", 7 ^ 0x5555, 0)])
def test_faults(server: DnsServer, fault: Fault, number: int, code: int) -> None:
    server.fault = "timeout"
    assert server.answer(query("host.lab")) is None
    server.fault = fault
    answer = server.answer(query("host.lab"))
    assert answer is not None
    assert (int.from_bytes(answer[:2], "big"), answer[3] & 15) == (number, code)


def test_frames_for_it_alone_are_answered(server: DnsServer) -> None:
    message = query("host.lab")
    udp = struct.pack("!HHHH", 999, 53, 8 + len(message), 0) + message
    ip = struct.pack("!BBHHHBBH4s", 0x45, 0, 20 + len(udp), 0, 0, 64, UDP, 0, b"\x0a\x4d\0\x0a")
    frame = server.mac + MAC + b"\x08\0" + ip
    (answer,) = server(frame + ADDRESS.packed + udp)
    packet = parse(answer)
    assert (packet.to_mac, packet.source, packet.destination_port) == (MAC, ADDRESS, 999)
    assert answer[packet.payload : packet.end] == server.answer(message)
    assert sum(struct.unpack("!10H", answer[14:34])) % 0xFFFF == 0
    assert server(frame + b"\x0a\x4d\0\x04" + udp) == []
    ask = b"\xff" * 6 + MAC + b"\x08\x06\0\1\x08\0\6\4\0\1" + MAC + b"\x0a\x4d\0\x0a" + bytes(6)
    assert server(ask + ADDRESS.packed)[0][22:32] == server.mac + ADDRESS.packed
    assert server(ask + b"\x0a\x4d\0\x04") == []


def test_too_long_an_answer_is_cut(server: DnsServer) -> None:
    for number in range(60):
        server.add("many.lab", "A", f"10.0.0.{number}")
    answer = server.answer(query("many.lab"))
    assert answer is not None
    assert answer[2] & 2
    assert len(answer) == len(query("many.lab"))


@pytest.mark.parametrize(
    "record",
    [("a.lab", "A", "nine"), ("a..b", "A", "10.0.0.1"), ("a", "SRV", "1 2")],
)
def test_no_records_are_refused(server: DnsServer, record: tuple[str, str, str]) -> None:
    with pytest.raises(MisuseError):
        server.add(*record)


@given(st.binary(max_size=300))
def test_no_message_breaks_it(message: bytes) -> None:
    answer = DnsServer(ADDRESS).answer(message)
    assert answer is None or len(answer) <= 512
    DnsServer(ADDRESS).answer(b"\0\7\1\0\0\1\0\0\0\0\0\0" + message)
