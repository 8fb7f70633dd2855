"""What a provider writes for monitoring and logs, line by line."""

import json
import re

import pytest

from phase.provider import access
from phase.provider.limits import Limits
from phase.provider.metrics import Metrics, formatted


def test_every_metric_has_a_help_and_a_type_that_prometheus_knows() -> None:
    counted = Metrics()
    counted.requests["/health", 200] += 2
    counted.failures["look"] += 1
    lines = counted.render({"phase_x": ("Something.", 1)}).splitlines()
    heads = [line for line in lines if line.startswith("#")]
    names = []
    for help_, kind in zip(heads[::2], heads[1::2], strict=True):
        found = re.fullmatch(r"# HELP ([a-z_]+) [A-Z].*\.", help_)
        assert found is not None, help_
        names.append(found[1])
        wanted = "counter" if names[-1].endswith("_total") else "gauge"
        assert kind == f"# TYPE {names[-1]} {wanted}"
    samples = [line for line in lines if not line.startswith("#")]
    assert {re.split(r"[ {]", line)[0] for line in samples} <= {*names}
    assert len(names) == len({*names})
    assert 'phase_provider_task_failures_total{task="look"} 1' in samples


def test_values_with_labels_are_lines_in_their_order() -> None:
    text = formatted({"a_total": ("All.", {'x="2"': 1, 'x="1"': 2}), "b": ("One.", 0.5)})
    assert text.splitlines() == [
        "# HELP a_total All.",
        "# TYPE a_total counter",
        'a_total{x="1"} 2',
        'a_total{x="2"} 1',
        "# HELP b One.",
        "# TYPE b gauge",
        "b 0.5",
    ]


def test_refused_connections_that_are_kept_are_bounded() -> None:
    limits = Limits(9, 9)
    limits.fit(12)
    assert [limits.hold() for _ in range(4)] == [True, True, True, False]
    limits.let_go()
    assert [limits.hold() for _ in range(2)] == [True, False]
    limits.fit(1)
    for _ in range(3):
        limits.let_go()
    assert [limits.hold() for _ in range(2)] == [True, False], "one there may always be"


class _Writer:
    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def write(self, line: str) -> None:
        self.lines.append(json.loads(line))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> _Writer:
    made = _Writer()
    monkeypatch.setattr(access._Place, "writer", made)
    return made


def test_a_line_says_which_part_of_a_file_was_asked_for(log: _Writer) -> None:
    for part in ("bytes=0-9", None, "bytes=" + "9" * 5000):
        access.answered(
            client="192.0.2.1",
            method="GET",
            path="/blobs/x",
            range_=part,
            agent="phase",
            status=206,
            length=10,
            seconds=0.123456,
        )
    first, whole, long = log.lines
    assert first.pop("time")
    assert first == {
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/blobs/x",
        "status": 206,
        "bytes": 10,
        "seconds": 0.1235,
        "range": "bytes=0-9",
        "agent": "phase",
    }
    assert "range" not in whole
    assert len(str(long["range"])) == access._MAX_TEXT


def test_refused_connections_do_not_fill_the_log(log: _Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Behind any line of another test.
    now = access._pace.since + 100.0
    monkeypatch.setattr(access, "monotonic", lambda: now)
    for _ in range(access.REFUSED_PER_SECOND + 5):
        access.refused("192.0.2.1", 503, 7)
    assert len(log.lines) == access.REFUSED_PER_SECOND
    now += 1.0
    access.refused("192.0.2.1", 429, 7)
    access.refused("192.0.2.1", 429, 7)
    (after, last) = log.lines[-2:]
    assert (after["status"], after["bytes"], after["left_out"]) == (429, 7, 5)
    assert "left_out" not in last
