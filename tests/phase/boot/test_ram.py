from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase.boot.errors import HandoffError
from phase.boot.ram import Range, highest, lowest, without

RANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 200)), min_size=1, max_size=5).map(
    lambda found: [Range(start * 4096, (start + size) * 4096) for start, size in found]
)


def inside(ranges: list[Range], start: int, size: int) -> bool:
    return any(part.start <= start and start + size <= part.end for part in ranges)


@given(ranges=RANGES, size=st.integers(1, 300 * 4096), step=st.sampled_from([4096, 65536]))
def test_places_are_inside_and_aligned(ranges: list[Range], size: int, step: int) -> None:
    finders: list[Callable[[], int]] = [
        lambda: lowest(ranges, size, step=step, least=8192),
        lambda: highest(ranges, size, below=300 * 4096, step=step),
    ]
    for find in finders:
        try:
            place = find()
        except HandoffError:
            continue
        assert place % step == 0
        assert inside(ranges, place, size)


@given(ranges=RANGES, start=st.integers(0, 300), size=st.integers(0, 200))
def test_what_is_left_is_what_was_there_without_the_part(ranges: list[Range], start: int, size: int) -> None:
    taken = Range(start * 4096, (start + size) * 4096)
    pages = {page for part in ranges for page in range(part.start // 4096, part.end // 4096)}
    left = {page for part in without(ranges, taken) for page in range(part.start // 4096, part.end // 4096)}
    assert left == pages - set(range(start, start + size))


def test_none_is_an_error() -> None:
    with pytest.raises(HandoffError, match="in one piece"):
        lowest([Range(0, 4096)], 8192)
    with pytest.raises(HandoffError, match="in one piece"):
        highest([Range(0, 1 << 32)], 8192, below=4096)
