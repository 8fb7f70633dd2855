"""How often each scenario boots, how long each phase takes, and which way that goes. Draws nothing."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.report.history import Row, Run
from lab.report.records import Record
from lab.report.table import phase_order

#: A trend needs this many earlier boots to be compared with.
_LEAST = 3
_FAILED = ("failed", "error", "not run")
#: Outcomes that say nothing about whether a machine boots.
_SILENT = ("skipped", "not run")


@dataclass(frozen=True)
class Spread:
    """Seconds over several boots: half of them took at most `median`, 95 of 100 at most `p95`."""

    median: float
    p95: float


@dataclass(frozen=True)
class Line:
    """One row of the matrix.

    Attributes:
        row: what it is about.
        runs: what counted, oldest first: what was skipped or did not run says nothing, nor do those whose
            machines only went on from a stage.
        passed: how many went well at the first try; a flaky one did not.
        boots: whole seconds of each boot that went well, oldest first, on the accelerator last used.
        phases: of those boots.
        whole: of those boots, all phases together; None when none was timed.
        trend: the last boot against the median of the earlier ones, 0.1 for ten percent slower; None when
            there are too few.
    """

    row: Row
    runs: tuple[Run, ...]
    passed: int
    boots: tuple[float, ...]
    phases: dict[str, Spread]
    whole: Spread | None
    trend: float | None

    @property
    def rate(self) -> float:
        """The share that passed."""
        return self.passed / len(self.runs)


def lines(history: Iterable[Run]) -> list[Line]:
    """The matrix, ordered by scenario and then architecture.

    Args:
        history: oldest first.
    """
    rows: dict[Row, list[Run]] = {}
    for run in history:
        # A clone has not booted.
        if run.record.outcome not in _SILENT and run.record.booted:
            rows.setdefault(run.row, []).append(run)
    return [_line(row, rows[row]) for row in sorted(rows)]


def failures(records: Iterable[Record]) -> list[Record]:
    """What was not green in a run."""
    return [record for record in records if record.outcome in (*_FAILED, "flaky")]


def spread(seconds: Sequence[float]) -> Spread:
    """Median and 95th percentile (nearest rank: a value that was measured).

    Args:
        seconds: at least one.
    """
    ordered = sorted(seconds)
    return Spread(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1])


def _line(row: Row, runs: list[Run]) -> Line:
    passed = [run.record for run in runs if run.record.outcome == "passed"]
    timed = [record for record in passed if record.phases]
    # An emulated boot and an accelerated one are different measurements.
    timed = [record for record in timed if record.accel == timed[-1].accel]
    boots = tuple(sum(record.phases.values()) for record in timed)
    phases = {
        name: spread([record.phases[name] for record in timed if name in record.phases])
        for name in phase_order(timed)
    }
    trend = boots[-1] / statistics.median(boots[:-1]) - 1 if len(boots) > _LEAST else None
    whole = spread(boots) if boots else None
    return Line(row, tuple(runs), len(passed), boots, phases, whole, trend)
