import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.marks import Mark
from lab.timeline import phases

KERNELS = {"kernel": "firmware", "kernel2": "handoff"}


def mark(step: str, t: float, arrived: float, outcome: str = "ok") -> Mark:
    return Mark(step, outcome, t, {}, arrived)


def test_a_kernel_is_counted_back_from_its_mark() -> None:
    seen = [mark("kernel", 2.0, 103.0), mark("init", 2.5, 103.5)]
    assert phases(seen, power_on=100.0, kernels=KERNELS) == {"firmware": 1.0, "kernel": 2.0, "init": 0.5}


def test_what_lies_before_the_second_kernel_is_the_handoff() -> None:
    seen = [mark("kernel", 1, 101), mark("handoff", 3, 103), mark("kernel2", 4, 108.5), mark("job", 5, 110)]
    found = phases(seen, power_on=100.0, kernels=KERNELS)
    assert found == {"firmware": 0.0, "kernel": 1.0, "handoff": 3.5, "kernel2": 4.0, "job": 1.5}


def test_a_step_tried_again_counts_whole() -> None:
    seen = [mark("kernel", 1, 101), mark("fetch", 2, 102, "retry"), mark("fetch", 5, 105)]
    assert phases(seen, power_on=100.0, kernels=KERNELS)["fetch"] == 4.0


def test_nothing_gives_nothing() -> None:
    assert phases([], power_on=1.0, kernels=KERNELS) == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["kernel", "init", "fetch", "kernel2", "job"]),
            st.floats(min_value=0, max_value=1000),
            st.floats(min_value=0, max_value=60),
        ),
        min_size=1,
    )
)
def test_phases_are_never_negative_and_add_up(steps: list[tuple[str, float, float]]) -> None:
    arrived, seen = 0.0, []
    for step, t, gap in steps:
        arrived += gap
        seen.append(mark(step, t, arrived))
    found = phases(seen, power_on=0.0, kernels=KERNELS)
    assert all(seconds >= 0 for seconds in found.values())
    assert sum(found.values()) == pytest.approx(arrived, abs=0.001 * len(found) + 1e-9)
