"""Places in physical memory."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from phase.boot.errors import HandoffError

PAGE = 4096


class Range(NamedTuple):
    """Addresses from `start` up to, and without, `end`."""

    start: int
    end: int


def align(value: int, step: int = PAGE) -> int:
    """The next multiple of a power of two."""
    return -(-value // step) * step


def without(ranges: Iterable[Range], taken: Range) -> tuple[Range, ...]:
    """What is left of memory when a part is taken."""
    left = []
    for start, end in ranges:
        if start < taken.start:
            left.append(Range(start, min(end, taken.start)))
        if end > taken.end:
            left.append(Range(max(start, taken.end), end))
    return tuple(part for part in left if part.start < part.end)


def lowest(ranges: Sequence[Range], size: int, *, step: int = PAGE, least: int = 0) -> int:
    """The lowest aligned address at which so many bytes are free.

    Raises:
        HandoffError: there is none.
    """
    for start, end in sorted(ranges):
        place = align(max(start, least), step)
        if place + size <= end:
            return place
    raise HandoffError(f"no {size >> 20} MiB of memory in one piece for the next kernel")


def highest(ranges: Sequence[Range], size: int, *, below: int, step: int = PAGE) -> int:
    """The highest aligned address, all of it below a limit, at which so many bytes are free.

    Raises:
        HandoffError: there is none.
    """
    for start, end in sorted(ranges, reverse=True):
        place = (min(end, below) - size) // step * step
        if place >= start:
            return place
    raise HandoffError(f"no {size >> 20} MiB of memory in one piece for the next kernel's initrd")
