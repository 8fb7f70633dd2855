"""How long each phase of a boot took, from the marks at their ends."""

from collections.abc import Mapping, Sequence

from lab.marks import Mark


def phases(marks: Sequence[Mark], *, power_on: float, kernels: Mapping[str, str]) -> dict[str, float]:
    """Turn marks into durations.

    A phase ends with its mark and begins where the one before ended. A kernel prints its mark when
    it reaches its first process; its own clock says how long that took, and what lies between the
    mark before and its start belongs to whoever started it.

    Args:
        marks: in the order they arrived.
        power_on: `time.monotonic()` when the machine was switched on.
        kernels: kernel step to the phase that started it: `{"kernel": "firmware", "kernel2": "handoff"}`.

    Returns:
        Phase to seconds, in order. A phase that was tried several times counts whole.
    """
    result: dict[str, float] = {}
    before = power_on
    for mark in marks:
        if mark.step in kernels:
            started = max(mark.arrived - mark.t, before)
            starter = kernels[mark.step]
            result[starter] = result.get(starter, 0.0) + started - before
            before = started
        result[mark.step] = result.get(mark.step, 0.0) + mark.arrived - before
        before = mark.arrived
    return {name: round(seconds, 3) for name, seconds in result.items()}
