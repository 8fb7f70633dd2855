import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf._dns import DNSPointer, DNSText
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing

from phase.discovery.mdns import wire
from phase.discovery.mdns.wire import SERVICE_NAME, Question, Record
from tests.phase.discovery.mdns.packets import instance, pointer, provider


def test_what_is_written_is_read() -> None:
    records = provider("192.0.2.1", "2001:db8::1")
    (packet,) = wire.responses(records[:2], records[2:])
    found = wire.parse(packet)
    assert found is not None
    assert found.response
    assert [*found.answers, *found.additionals] == records
    asked = [Question(SERVICE_NAME, wire.PTR, True), Question(instance(b"a"), wire.ANY)]
    again = wire.parse(wire.query(asked, [pointer(b"known")], [pointer(b"claimed")]))
    assert again is not None
    assert (again.questions, again.answers, again.authorities) == (
        asked,
        [pointer(b"known")],
        [pointer(b"claimed")],
    )


def test_another_library_reads_what_is_written() -> None:
    (packet,) = wire.responses(provider("192.0.2.1", "fe80::1"))
    read = DNSIncoming(packet)
    assert read.valid
    assert {record.name for record in read.answers()} >= {
        "_phase-image._tcp.local.",
        "phase-deadbeef.local.",
    }
    assert len(read.answers()) == len(provider("192.0.2.1", "fe80::1"))


def test_what_another_library_writes_is_read() -> None:
    out = DNSOutgoing(0x8400, multicast=True)
    name = "A b._phase-image._tcp.local."
    out.add_answer_at_time(DNSPointer("_phase-image._tcp.local.", 12, 1, 120, name), 0)
    out.add_answer_at_time(DNSText(name, 16, 0x8001, 120, b"\x03a=b"), 0)
    found = wire.parse(out.packets()[0])
    assert found is not None
    assert [wire.read_ptr(found.answers[0].data)] == [instance(b"A b")]
    assert found.answers[1].unique
    assert wire.read_txt(found.answers[1].data) == {b"a": b"b"}


def test_many_answers_need_several_packets_each_of_which_fits() -> None:
    records = [pointer(b"%050d" % number) for number in range(200)]
    packets = wire.responses(records)
    assert len(packets) > 1
    assert all(len(packet) <= wire.MAX_SENT for packet in packets)
    read = [wire.parse(packet) for packet in packets]
    assert [each for packet in read if packet for each in packet.answers] == records


HEAD = bytes.fromhex("000084000000000100000000")
TAIL = bytes.fromhex("000c000100000078")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (b"\xc0\x0c", "points to itself"),
        (b"\xc0\x0e\xc0\x0c", "points ahead"),
        (b"\x3f", "no end"),
        (b"\x40", "a label of another kind"),
        (b"\x01a" * 130 + b"\0", "too long"),
    ],
)
def test_names_that_are_none(name: bytes, why: str) -> None:
    packet = HEAD + name + TAIL + b"\0\1\0"
    found = wire.parse(packet)
    assert found is None or not found.answers, why


def test_a_bad_record_is_one_record_less() -> None:
    """Its name, its data or its type is odd; the honest one in the same packet counts."""
    good = Record(SERVICE_NAME, wire.PTR, wire.pack_name(instance(b"good")))
    for odd in (
        Record(SERVICE_NAME, wire.PTR, b"\0"),
        Record(SERVICE_NAME, wire.A, b"\1\2\3"),
        Record(SERVICE_NAME, wire.SRV, b"\0" * 6 + b"\0"),
        Record(SERVICE_NAME, 47, b"\xff\xff\xff"),
        Record((b"\x1b[31m\0\n", b"\xff"), wire.TXT, b""),
        Record((), wire.TXT, b"\xff"),
    ):
        (packet,) = wire.responses([odd, good])
        found = wire.parse(packet)
        assert found is not None
        assert good in found.answers


def test_text_escapes_what_is_not_printable() -> None:
    assert wire.text((b"\x1b[31m\n.", b"local")) == "\\027[31m\\010\\046.local."


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(data: bytes) -> None:
    wire.parse(data)
    wire.parse(HEAD + data)
    wire.read_txt(data)


def test_a_packet_full_of_pointers_takes_no_time() -> None:
    """Each of 4,000 names points back through all the others."""
    chain = b"\x01a\0" + b"".join(
        b"\x01a" + (0xC000 | 12 + max(0, 4 * n - 4)).to_bytes(2, "big") for n in range(2000)
    )
    assert wire.parse(HEAD[:6] + b"\xff\xff" + bytes(4) + chain) is None
    assert wire.parse(HEAD[:6] + b"\x02\x00" + bytes(4) + chain) is not None
