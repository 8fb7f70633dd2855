import re
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.errors import MisuseError, ProductError
from lab.net.packet import IPV4, UDP, ethernet, udp
from lab.net.segment import Segment
from lab.net.switch import Node

HERE = IPv4Address("10.77.0.10")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    made = Segment("lan", tmp_path, 0)
    yield made
    made.switch.close()


def say(segment: Segment, node: Node, destination: str) -> None:
    """Send, and wait until it has passed."""
    datagram = udp((HERE, 1000), (IPv4Address(destination), 53), b"")
    before = node.received
    node.send(ethernet(b"\xff" * 6, b"\x02\0\0\0\0\1", IPV4, datagram))
    deadline = time.monotonic() + 20
    while node.received == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert node.received == before + 1


def test_what_must_not_pass_is_named(segment: Segment) -> None:
    node = segment.switch.add_service(lambda frame: [], "machine")
    for inside in ("10.77.0.1", "224.0.0.251", "255.255.255.255", "10.77.0.255"):
        say(segment, node, inside)
    segment.expect_nothing_left()
    for _ in range(7):
        say(segment, node, "192.0.2.1")
    told = re.escape("7 packets left the segment lan: UDP 10.77.0.10:1000 > 192.0.2.1:53; ")
    with pytest.raises(ProductError, match=told):
        segment.expect_nothing_left()
    with pytest.raises(ProductError, match="11 packets of no use: ") as failure:
        segment.expect_none(lambda packet: packet.protocol == UDP, "of no use")
    assert failure.value.what.count("UDP") == 5
    segment.expect_none(lambda packet: packet.destination_port == 54, "to another port")
    assert len(segment.strays()) == 7


def test_addresses_for_what_is_no_machine_come_from_the_top(segment: Segment) -> None:
    assert [segment.dhcp.reserve().packed[3] for _ in range(3)] == [254, 253, 252]
    for number in range(242):
        segment.dhcp.lease_of(number.to_bytes(6, "big"))
    for full in (segment.dhcp.reserve, lambda: segment.dhcp.lease_of(b"\xff" * 6)):
        with pytest.raises(ValueError, match="no free address"):
            full()


def test_who_is_not_there_has_no_link(segment: Segment) -> None:
    with pytest.raises(MisuseError, match="nobody is not on the segment lan"):
        segment.link("nobody")
