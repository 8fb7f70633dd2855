"""What is kept of each scenario: its record, from its first moment to its end.

A record is written when a scenario begins, and says then that it did not end. Only its end replaces that: a
worker that is killed leaves no pass.
"""

import hashlib
import logging
import os
import platform
import re
import shlex
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab import host
from lab.errors import InfrastructureError, LabError, MisuseError
from lab.evidence import attach_phases, tracks
from lab.printable import clean
from lab.report import records
from lab.report.run import Expected, Manifest, Results
from lab.topology import Lab

#: The lab of a scenario, or of a module whose tests share one.
LAB = pytest.StashKey[Lab]()
#: pytest's name of a test; xdist changes it later.
_NODEID = pytest.StashKey[str]()
#: What the scenario itself says.
TOLD = pytest.StashKey[dict[str, Any]]()
#: The record as far as it is known.
_DRAFT = pytest.StashKey[records.Record]()
#: What earlier tries of this scenario failed with.
TRIES = pytest.StashKey[list[str]]()
#: What failed first in this try.
_FAILURE = pytest.StashKey["Failure"]()
#: Characters of a failure's first words that a record keeps.
_WORDS = 300
_log = logging.getLogger("lab")


class Failure(msgspec.Struct, frozen=True):
    """Who has to act on a failure, what it said, and pytest's word for it."""

    owner: str
    what: str
    outcome: str


class Record:
    """The `record` fixture: a scenario says what it was, for the report."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __call__(
        self,
        *,
        scenario: str,
        arch: str,
        topology: str,
        phases: Mapping[str, float],
        kernel: str,
        accel: str,
        firmware: str,
        mode: str = "",
        power_on: float | None = None,
    ) -> None:
        """Say it; the last call counts.

        Args:
            scenario: its name in the report.
            arch: `x86_64` or `arm64`: that of the machine under test.
            topology: its machines and links, in words.
            phases: seconds that each phase of the boot took, in order.
            kernel: release of the kernel that ran in the end.
            accel: the accelerator, such as `tcg`.
            firmware: `uefi`, `bios` or `direct`.
            mode: what the boot was allowed, if there is such a thing.
            power_on: when the phases began (`time.monotonic()`); left out, they ended just now.

        Raises:
            MisuseError: something has another type than its name says.
        """
        fields = dict(
            scenario=scenario,
            arch=arch,
            topology=topology,
            phases=dict(phases),
            kernel=kernel,
            accel=accel,
            firmware=firmware,
            mode=mode,
        )
        try:
            msgspec.convert(fields | {"outcome": "passed"}, records.Record)
        except msgspec.ValidationError as error:
            raise MisuseError(f"record() cannot keep that: {error}") from error
        self._fields.update(fields)
        lasted = sum(phases.values())
        attach_phases(phases, time.time() - (time.monotonic() - power_on if power_on else lasted))


def remember_name(item: pytest.Item) -> None:
    """Keep pytest's name of a test before xdist appends its group to it."""
    # A directory's name may be bytes that are not text; a record is text.
    item.stash[_NODEID] = item.nodeid.encode(errors="backslashreplace").decode()


def nodeid_of(item: pytest.Item) -> str:
    """Pytest's name of a test, without the group that xdist appends."""
    return item.stash.get(_NODEID, item.nodeid)


def begin(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the results of this run: those of earlier runs are deleted.

    Args:
        config: of the run.
        items: the scenarios that it is to run.

    Raises:
        LabError: results cannot be written.
    """
    run = getattr(config, "workerinput", {}).get("testrunuid") or uuid.uuid4().hex
    began = round(time.time(), 3)
    expected: dict[Path, list[Expected]] = {}
    for item in items:
        test = Expected(nodeid=nodeid_of(item), scenario=_function(item), arch=_parameter(item))
        expected.setdefault(out(item), []).append(test)
    for directory, tests in expected.items():
        results = Results(directory, Manifest(run=run, began=began, expected=tests))
        config.add_cleanup(results.close)


def out(item: pytest.Item) -> Path:
    """Where a scenario's results go."""
    name = item.config.getoption("--lab-out").replace("{arch}", arch_of(item))
    return Path(item.config.rootpath, name)


def arch_of(item: pytest.Item) -> str:
    """The architecture that a scenario is run for; the host's own, where it is for none."""
    own = platform.machine()
    return _parameter(item) or host.ARCHES.get(own, own)


def evidence_path(item: pytest.Item) -> Path:
    """Where a failure's evidence goes: a directory that has the test's name."""
    return out(item) / "evidence" / _file_name(item)


def opened(item: pytest.Item) -> None:
    """Write that a scenario has begun, and has not ended.

    Raises:
        InfrastructureError: it cannot be written.
    """
    try:
        _write(
            item,
            records.Record(
                scenario=_function(item),
                arch=_parameter(item),
                topology="",
                outcome="error",
                nodeid=nodeid_of(item),
                ended=round(time.time(), 3),
                owner="infrastructure",
                what="It began and did not end: its process was killed, or the host ran out of memory.",
                lost=True,
            ),
        )
    except OSError as error:
        raise InfrastructureError(
            f"the record of {nodeid_of(item)} cannot be written: {error.strerror}; "
            "name another directory with --lab-out"
        ) from error


def closed(item: pytest.Item, busy: float) -> None:
    """Write how a scenario ended.

    Args:
        item: the scenario; nothing is written for one that came to no outcome, as with `--setup-only`.
        busy: processors that it kept busy, on average.
    """
    draft = item.stash.get(_DRAFT, None)
    try:
        if draft is None:
            _path(item).unlink(missing_ok=True)
        else:
            _write(item, msgspec.structs.replace(draft, busy=busy))
    except Exception as error:
        # What stands there says that it did not end. A hook that raises would end the whole run.
        _log.error("the record of %s cannot be written: %s", nodeid_of(item), error)


def tried_again(item: pytest.Item) -> None:
    """Forget how the last try failed, but for its words: the next one begins."""
    failure = item.stash.get(_FAILURE, None)
    if failure is not None:
        del item.stash[_FAILURE]
        item.stash.setdefault(TRIES, []).append(failure.what)
        item.user_properties[:] = [pair for pair in item.user_properties if pair[0] not in ("owner", "what")]


def failed(item: pytest.Item, report: pytest.TestReport, error: BaseException | None, owner: str) -> None:
    """Keep how a scenario failed. What failed first counts: a teardown that then met the host does not.

    Args:
        item: the scenario.
        report: of the phase that failed; gets the owner, as a property for other reports.
        error: what it raised.
        owner: who has to act on it.
    """
    what = _said(error)[:_WORDS]
    facts: list[tuple[str, object]] = [("owner", owner), ("what", what)]
    report.user_properties += facts
    if _FAILURE not in item.stash:
        # JUnit's XML has the properties of the last phase, which copies those of the item.
        item.user_properties += facts
        outcome = "failed" if report.when == "call" else "error"
        item.stash[_FAILURE] = Failure(owner, what, outcome)


def _said(error: BaseException | None) -> str:
    try:
        said = error.what if isinstance(error, LabError) else clean(str(error))
        return said.encode(errors="backslashreplace").decode()
    except Exception as second:
        return f"{type(error).__name__}, whose text cannot be had: {type(second).__name__}"


def draft(item: pytest.Item, report: pytest.TestReport, made: Lab | None) -> None:
    """Keep a scenario's record as it is after one of its phases.

    Args:
        item: the scenario.
        report: of its last phase so far.
        made: its lab, still standing; None when it did not come to that.
    """
    machines = list(made.machines.values()) if made else []
    on = [vm for vm in machines if vm.power_on]
    accel = machines[0].facts.get("accel", "") if machines else ""
    record = records.Record(
        scenario=_function(item),
        arch=_parameter(item) or (machines[0].arch if machines else ""),
        topology=", ".join(f"{vm.name} {vm.arch}" for vm in machines),
        outcome=report.outcome,
        accel=accel,
        refused=host.refused(machines[0].arch) if accel == "tcg" else "",
        firmware=machines[0].facts.get("firmware", "") if machines else "",
        nodeid=nodeid_of(item),
        duration=round(report.duration, 3),
        ended=round(time.time(), 3),
        nodes=made.nodes() if made else [],
        tracks=tracks(machines),
        stage=", ".join(f"{vm.name} {vm.facts['stage']}" for vm in on if "stage" in vm.facts),
        booted=not on or any("stage" not in vm.facts for vm in on),
        tries=item.stash.get(TRIES, []),
    )
    record = msgspec.structs.replace(record, **item.stash.get(TOLD, {}))
    if failure := item.stash.get(_FAILURE, None):
        # A subtest that failed fails its test, whatever the test itself comes to.
        record = msgspec.structs.replace(record, **msgspec.structs.asdict(failure))
    elif ("flaky", True) in report.user_properties:
        record = msgspec.structs.replace(record, outcome="flaky")
    item.stash[_DRAFT] = record


def again(item: pytest.Item) -> str:
    """The command that runs one scenario again, as it was run."""
    told = {name: os.environ.get(name) for name in ("LAB_ACCEL", "LAB_TIMEOUT_FACTOR")}
    before = "".join(f"{name}={shlex.quote(value)} " for name, value in told.items() if value)
    words = ["python", "-m", "pytest", nodeid_of(item), f"--lab-seed={item.config.getoption('--lab-seed')}"]
    if seconds := item.config.getoption("--timeout", None):
        words.append(f"--timeout={seconds:g}")
    if board := item.config.getoption("--board"):
        words.append(f"--board={board}")
    return before + shlex.join(words)


def _function(item: pytest.Item) -> str:
    return getattr(item, "originalname", None) or item.name


def _parameter(item: pytest.Item) -> str:
    """The architecture that a test is parametrised with; empty when it is not."""
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("arch", "")) if callspec is not None else ""


def _file_name(item: pytest.Item) -> str:
    nodeid = nodeid_of(item)
    words = re.sub(r"[^A-Za-z0-9_]+", "-", nodeid.rpartition("/")[2].replace(".py::", "-")).strip("-")
    # Two tests may have the same words; a directory's name has 255 bytes at most.
    return f"{words[:120]}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"


def _path(item: pytest.Item) -> Path:
    return out(item) / "records" / f"{_file_name(item)}.json"


def _write(item: pytest.Item, record: records.Record) -> None:
    records.write(_path(item), msgspec.json.format(msgspec.json.encode(record)) + b"\n")
