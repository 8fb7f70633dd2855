"""The pytest plugin: the `lab` fixture, evidence with every failure, a record of every scenario.

Load it with `-p lab.plugin`, or `pytest_plugins = ["lab.plugin"]`.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import allure
import pytest

from lab.errors import LabError
from lab.topology import Lab

__all__ = ["Lab", "lab"]

_LAB = pytest.StashKey[Lab]()
_RECORD = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--lab-out`: where records go."""
    group = parser.getgroup("lab")
    group.addoption("--lab-out", default="reports/out", help="directory for results (default: reports/out)")


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of this scenario's own; everything in it is gone when the scenario ends."""
    with Lab() as made:
        request.node.stash[_LAB] = made
        yield made


@pytest.fixture
def record(request: pytest.FixtureRequest) -> "Record":
    """Says what this scenario was, for the report."""
    return Record(request.node)


class Record:
    """What the report tells of a scenario."""

    def __init__(self, item: pytest.Item) -> None:
        self._fields = item.stash.setdefault(_RECORD, {})

    def __call__(
        self, *, scenario: str, arch: str, topology: str, phases: Mapping[str, float], kernel: str, accel: str
    ) -> None:
        """Set it; what is set last counts."""
        self._fields.update(
            scenario=scenario, arch=arch, topology=topology, phases=dict(phases), kernel=kernel, accel=accel
        )
        for name, seconds in phases.items():
            with allure.step(f"{name}: {seconds:.2f} s"):
                pass


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach consoles and marks while the machines still stand; after a failure also what they are."""
    report = yield
    made = item.stash.get(_LAB, None)
    if call.when == "call":
        if made is not None:
            _attach(made, report)
        if report.failed and call.excinfo is not None:
            error = call.excinfo.value
            owner = error.owner if isinstance(error, LabError) else "product"
            allure.dynamic.label("owner", owner)
        _write_record(item, report)
    return report


def _attach(made: Lab, report: pytest.TestReport) -> None:
    for vm in made.machines.values():
        if vm.power_on:
            text = vm.console.text
            allure.attach(text, f"console of {vm.name}", allure.attachment_type.TEXT)
            marks = [mark._asdict() | {"arrived": round(mark.arrived - vm.power_on, 3)} for mark in vm.marks]
            allure.attach(json.dumps(marks, indent=1), f"marks of {vm.name}", allure.attachment_type.JSON)
        if report.failed:
            evidence = vm.evidence()
            report.sections.append((f"lab: {vm.name}", evidence))
            allure.attach(evidence, f"evidence of {vm.name}", allure.attachment_type.TEXT)


def _write_record(item: pytest.Item, report: pytest.TestReport) -> None:
    fields = item.stash.get(_RECORD, None)
    made = item.stash.get(_LAB, None)
    if made is None:
        return
    callspec = getattr(item, "callspec", None)
    first = next(iter(made.machines.values()), None)
    known = {
        "scenario": item.name,
        "arch": callspec.params.get("arch", "") if callspec else (first.arch if first else ""),
        "topology": ", ".join(f"{vm.name} ({vm.arch})" for vm in made.machines.values()),
        "phases": {},
        "accel": first.spec.accel if first else "",
        "kernel": "",
    }
    out = Path(item.config.getoption("--lab-out")) / "records"
    out.mkdir(parents=True, exist_ok=True)
    whole = known | (fields or {}) | {
        "nodeid": item.nodeid,
        "outcome": report.outcome,
        "duration": round(report.duration, 3),
    }
    name = hashlib.sha256(item.nodeid.encode()).hexdigest()[:16]
    (out / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
