"""What is said of machines while a scenario runs."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from lab.live import SILENCE, Watch


def machine(*steps: tuple[str, float], last: str = "") -> Any:
    """One that was switched on at 100, with marks that came at these times; its last line."""
    marks = [SimpleNamespace(step=step, outcome="ok", arrived=arrived) for step, arrived in steps]
    console = SimpleNamespace(tail=lambda lines: last)
    return SimpleNamespace(
        name="client", arch="arm64", power_on=100.0, running=True, marks=marks, console=console
    )


def test_each_phase_is_said_once_with_its_seconds() -> None:
    watch = Watch()
    assert watch.news([machine(("kernel", 102.0), ("init", 105.5))], 106.0) == [
        "     2.0 s  arm64 client: kernel ok, took 2.0 s",
        "     5.5 s  arm64 client: init ok, took 3.5 s",
    ]
    (line,) = watch.news([machine(("kernel", 102.0), ("init", 105.5), ("job", 109.0))], 109.0)
    assert re.fullmatch(r" +9\.0 s  arm64 client: job ok, took 3\.5 s", line)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("phase: fetch: 3.1 of 40.7 MB", True),
        ("[   52.181009] lab-15bee3cc got 3 -1 f55308517128", False),
        ('[    9.8] phase-mark {"step":"kernel"}', False),
        ("kICRuICRyIDAgLTsg" * 6, False),
        ("", False),
    ],
)
def test_a_silent_machines_last_line_is_one_for_people(last: str, said: bool) -> None:
    watch = Watch()
    watch.news([machine(("kernel", 102.0))], 102.0)
    lines = watch.news([machine(("kernel", 102.0), last=last)], 103.0 + SILENCE)
    assert [last in line for line in lines] == ([True] if said else [])
