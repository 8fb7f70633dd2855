"""How long each phase of a boot took, from the marks at their ends."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lab.marks import Mark

#: Which phase starts which kernel, in a boot that hands over to a second one.
KERNELS: Mapping[str, str] = {"kernel": "firmware", "kernel2": "handoff"}


class Span(NamedTuple):
    """One phase.

    Attributes:
        name: of the phase.
        start: seconds since power-on.
        end: seconds since power-on.
        outcome: that of the mark at its end.
    """

    name: str
    start: float
    end: float
    outcome: str


def spans(marks: Sequence[Mark], *, power_on: float, kernels: Mapping[str, str] = KERNELS) -> list[Span]:
    """Turn marks into phases.

    A phase ends with its mark and begins where the one before ended. A kernel prints its mark when
    it reaches its first process; its own clock says how long that took, and what lies between the
    mark before and its start belongs to the phase that started it.

    Args:
        marks: in the order they arrived.
        power_on: `time.monotonic()` when the machine was switched on.
        kernels: kernel step to the phase that started it.

    Returns:
        Every phase in order, without a gap.
    """
    found = []
    before = power_on
    for mark in marks:
        if mark.step in kernels:
            started = max(mark.arrived - mark.t, before)
            found.append(Span(kernels[mark.step], before - power_on, started - power_on, "ok"))
            before = started
        found.append(Span(mark.step, before - power_on, mark.arrived - power_on, mark.outcome))
        before = mark.arrived
    return found


def phases(marks: Sequence[Mark], *, power_on: float, kernels: Mapping[str, str]) -> dict[str, float]:
    """How long each phase took; the arguments are those of `spans`.

    Returns:
        Phase to seconds, in order. A phase that was tried several times counts whole.
    """
    result: dict[str, float] = {}
    for name, start, end, _ in spans(marks, power_on=power_on, kernels=kernels):
        result[name] = result.get(name, 0.0) + end - start
    return {name: round(seconds, 3) for name, seconds in result.items()}
