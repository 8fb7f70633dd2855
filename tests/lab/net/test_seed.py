"""One number decides for every cable of a lab."""

from itertools import combinations

from lab.net.faults import Faults
from lab.topology import Lab

_FRAME = bytes(64)


def lost(seed: int, segment: str) -> list[list[int]]:
    """Of a thousand frames, those that each direction of a cable loses, at 30 %."""
    with Lab(factor=1, seed=seed) as lab:
        lab.segment("first")
        link = (lab.segments.get(segment) or lab.segment(segment)).link("dhcp")
        link.to_machine = link.from_machine = Faults(loss=0.3)
        return [
            [number for number in range(1000) if not lane.admit(_FRAME, float(number))]
            for lane in (link.inward, link.outward)
        ]


def test_the_same_seed_loses_the_same_frames() -> None:
    assert lost(7, "first") == lost(7, "first")
    assert lost(7, "second") == lost(7, "second")


def test_seeds_segments_and_directions_differ() -> None:
    found = [way for seed in (0, 7) for segment in ("first", "second") for way in lost(seed, segment)]
    assert all(a != b for a, b in combinations(found, 2))
    assert all(200 < len(way) < 400 for way in found)
