import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.net.segment import Segment
from lab.net.switch import Service
from lab.net.vlan import Vlan

ADDRESSES = b"\xff" * 6 + b"\x02\0\0\0\0\1"
PLAIN = ADDRESSES + b"\x08\x06" + bytes(46)
#: VLAN 5, priority 3.
TAGGED = ADDRESSES + b"\x81\x00\x60\x05" + PLAIN[12:]


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[tuple[Segment, Segment]]:
    made = Segment("trunk", tmp_path, 0), Segment("lan", tmp_path, 1)
    yield made
    for segment in made:
        segment.switch.close()


def _into(seen: list[bytes]) -> Service:
    def take(frame: bytes) -> list[bytes]:
        seen.append(frame)
        return []

    return take


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_tags_come_and_go_at_the_border(segments: tuple[Segment, Segment]) -> None:
    trunk, lan = segments
    Vlan(5, trunk, lan)
    on_trunk: list[bytes] = []
    on_lan: list[bytes] = []
    tagged = trunk.switch.add_service(_into(on_trunk), "tagged")
    plain = lan.switch.add_service(_into(on_lan), "plain")
    tagged.send(TAGGED)
    until(lambda: on_lan == [PLAIN])
    plain.send(PLAIN)
    until(lambda: on_trunk == [ADDRESSES + b"\x81\x00\x00\x05" + PLAIN[12:]])


def test_what_is_not_of_the_vlan_does_not_pass(segments: tuple[Segment, Segment]) -> None:
    trunk, lan = segments
    Vlan(5, trunk, lan)
    on_lan: list[bytes] = []
    lan.switch.add_service(_into(on_lan), "plain")
    tagged = trunk.switch.add_service(lambda frame: [], "tagged")
    for frame in (PLAIN, ADDRESSES + b"\x81\x00\x00\x06" + PLAIN[12:], ADDRESSES + b"\x81\x00"):
        tagged.send(frame)
    tagged.send(TAGGED)
    until(lambda: bool(on_lan))
    assert on_lan == [PLAIN]
