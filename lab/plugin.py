"""The pytest plugin: the `lab` fixture, evidence with every failure, a record of every scenario.

Load it with `-p lab.plugin`, or `pytest_plugins = ["lab.plugin"]`.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import allure
import pytest

from lab.errors import LabError
from lab.topology import Lab

__all__ = ["Lab", "Record", "lab", "record"]

_LAB = pytest.StashKey[Lab]()
_RECORD = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--lab-out`: where records and evidence go."""
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
        self,
        *,
        scenario: str,
        arch: str,
        topology: str,
        phases: Mapping[str, float],
        kernel: str,
        accel: str,
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
    if "lab" not in getattr(item, "fixturenames", ()):
        return report
    # A setup that went well says nothing yet; neither does a teardown, unless it fails.
    if call.when != "call" and report.passed:
        return report
    made = item.stash.get(_LAB, None)
    out = Path(item.config.rootpath, item.config.getoption("--lab-out"))
    if made is not None:
        _attach(made, report, out / "evidence" / _name(item))
    if report.failed and call.excinfo is not None:
        error = call.excinfo.value
        owner = error.owner if isinstance(error, LabError) else "product"
        allure.dynamic.label("owner", owner)  # type: ignore[no-untyped-call]
    _write(
        out / "records" / f"{_name(item)}.json", json.dumps(record_of(item, report, made), indent=1) + "\n"
    )
    return report


def record_of(item: pytest.Item, report: pytest.TestReport, made: Lab | None) -> dict[str, Any]:
    """A scenario's line in the summary.

    Args:
        item: the test.
        report: of its last phase so far.
        made: its lab; None when it did not come to that.
    """
    callspec = getattr(item, "callspec", None)
    machines = list(made.machines.values()) if made else []
    fields: dict[str, Any] = {
        "scenario": getattr(item, "originalname", None) or item.name,
        "arch": machines[0].arch if machines else "",
        "topology": ", ".join(f"{vm.name} {vm.arch}" for vm in machines),
        "phases": {},
        "accel": machines[0].spec.accel if machines else "",
        "kernel": "",
    }
    if callspec is not None and "arch" in callspec.params:
        fields["arch"] = callspec.params["arch"]
    told = item.stash.get(_RECORD, None)
    fields |= told or {}
    fields["nodeid"] = item.nodeid
    fields["outcome"] = "error" if report.failed and report.when != "call" else report.outcome
    fields["duration"] = round(report.duration, 3)
    return fields


def _name(item: pytest.Item) -> str:
    return hashlib.sha256(item.nodeid.encode()).hexdigest()[:16]


def _attach(made: Lab, report: pytest.TestReport, kept: Path) -> None:
    for vm in made.machines.values():
        if vm.power_on:
            text = vm.console.text
            allure.attach(text, f"console of {vm.name}", allure.attachment_type.TEXT)
            marks = [mark._asdict() | {"arrived": round(mark.arrived - vm.power_on, 3)} for mark in vm.marks]
            allure.attach(json.dumps(marks, indent=1), f"marks of {vm.name}", allure.attachment_type.JSON)
            if report.failed:
                _write(kept / f"{vm.name}.console", text)
        if report.failed:
            evidence = vm.evidence()
            report.sections.append((f"lab: {vm.name}", f"{evidence}\n\nwhole consoles and captures: {kept}"))
            allure.attach(evidence, f"evidence of {vm.name}", allure.attachment_type.TEXT)
    if report.failed:
        for segment in made.segments.values():
            frames = segment.capture().read_bytes()
            _write(kept / f"{segment.name}.pcap", frames)
            allure.attach(frames, f"frames on {segment.name}", "application/vnd.tcpdump.pcap", "pcap")


def _write(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
