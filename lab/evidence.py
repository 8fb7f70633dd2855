"""What is kept of a scenario for who reads about it: pictures, consoles, frames, screens."""

import json
import os
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import allure
import allure_commons
import pytest
from allure_commons.model2 import Status, TestStepResult
from allure_pytest.listener import AllureListener

from lab.machine import Machine
from lab.qemu.vm import VM
from lab.report.drawing import MOST, Phase, Track, draw, printable
from lab.timeline import spans
from lab.topology import Lab


def tracks(machines: Sequence[Machine]) -> list[Track]:
    """What machines did, on the clock of the one that was switched on first."""
    on = [vm for vm in machines if vm.power_on]
    zero = min((vm.power_on for vm in on), default=0.0)
    found = []
    for vm in on:
        late = vm.power_on - zero
        seen = [
            Phase(
                printable(span.name),
                round(late + span.start, 3),
                round(late + span.end, 3),
                printable(span.outcome),
            )
            for span in spans(vm.marks[:MOST], power_on=vm.power_on)
        ]
        if seen:
            found.append(Track(machine=vm.name, arch=vm.arch, phases=seen, stage=vm.facts.get("stage", "")))
    return found


def attach_phases(phases: Mapping[str, float], began: float) -> None:
    """Show phases as steps of the test, each as long as it took.

    Args:
        phases: name to seconds, one after the other.
        began: when the first did, in seconds since 1970.
    """
    for plugin in allure_commons.plugin_manager.get_plugins():
        if not isinstance(plugin, AllureListener):
            continue
        end = began
        for name, seconds in phases.items():
            start, end = end, end + seconds
            # `allure.step` would take the time it is called at.
            number = str(uuid.uuid4())
            step = TestStepResult(name=f"{name}: {seconds:.2f} s", start=round(start * 1000))
            plugin.allure_logger.start_step(None, number, step)
            plugin.allure_logger.stop_step(number, stop=round(end * 1000), status=Status.PASSED)


def attach(made: Lab, report: pytest.TestReport, kept: Path) -> None:
    """Attach to the report what a scenario's machines did; of one that failed, also what they are.

    Args:
        made: its lab, still standing.
        report: of its last phase.
        kept: the directory that gets whole consoles and captures of a failure.
    """
    if seen := tracks(list(made.machines.values())):
        allure.attach(draw(seen), "timeline", allure.attachment_type.SVG)
    for vm in made.machines.values():
        try:
            _attach_machine(vm, report, kept)
        except Exception:
            # An exception in this hook would end the whole run: the other machines tell what they can.
            report.sections.append((f"lab: no evidence of {vm.name}", traceback.format_exc()))
    if report.failed:
        for segment in made.segments.values():
            try:
                frames = segment.capture().read_bytes()
                write(kept / f"{segment.name}.pcapng", frames)
            except OSError as error:
                report.sections.append((f"lab: no capture of {segment.name}", str(error)))
                continue
            allure.attach(frames, f"frames on {segment.name}", "application/x-pcapng", "pcapng")


def _attach_machine(vm: Machine, report: pytest.TestReport, kept: Path) -> None:
    if vm.power_on:
        text = vm.console.text
        allure.attach(text, f"console of {vm.name}", allure.attachment_type.TEXT)
        marks = [mark._asdict() | {"arrived": round(mark.arrived - vm.power_on, 3)} for mark in vm.marks]
        allure.attach(json.dumps(marks, indent=1), f"marks of {vm.name}", allure.attachment_type.JSON)
        if report.failed:
            write(kept / f"{vm.name}.console", text)
            write(kept / f"{vm.name}.console.raw", vm.console.raw)
    if report.failed:
        evidence = vm.evidence()
        report.sections.append((f"lab: {vm.name}", f"{evidence}\n\nwhole consoles and captures: {kept}"))
        allure.attach(evidence, f"evidence of {vm.name}", allure.attachment_type.TEXT)
        if isinstance(vm, VM) and vm.spec.display and vm.running:
            allure.attach(vm.screen(), f"screen of {vm.name}", allure.attachment_type.PNG)


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
