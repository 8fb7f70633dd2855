"""The pytest plugin: the `lab` fixture, leases, evidence with every failure, a record of every scenario.

Load it with `-p lab.plugin`, or `pytest_plugins = ["lab.plugin"]`. With `-n 2` scenarios run side by
side, as far as the host carries them: `@pytest.mark.lab(vcpus=2, memory=1024)` says what one needs, when it
is not `lab.leases.Need`'s defaults; `group="name"` keeps scenarios on one worker, and `seconds=100` says how
long one takes where no earlier run has told.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import shlex
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import allure
import msgspec
import pytest
from _pytest._code import Traceback
from _pytest.runner import runtestprotocol

from lab import host
from lab.board import option
from lab.board.description import Description
from lab.errors import InfrastructureError, LabError, MisuseError
from lab.evidence import attach, attach_phases, tracks, write
from lab.hold import hold
from lab.leases import Need, acquire
from lab.live import Announcer, watching
from lab.owners import owner_of
from lab.printable import clean
from lab.report import history
from lab.report.errors import ReportError
from lab.topology import Lab

__all__ = ["Lab", "Record", "board", "lab", "record"]

_LAB = pytest.StashKey[Lab]()
_RECORD = pytest.StashKey[dict[str, Any]]()
#: What the host did to earlier tries of this scenario.
_TRIES = pytest.StashKey[list[str]]()
#: Why a scenario was given no lease.
_REFUSED = pytest.StashKey[LabError]()
#: Who has to act on its failure, and what it said.
_FAILURE = pytest.StashKey[dict[str, Any]]()
#: Whether this worker has had its first scenario.
_BEGUN = pytest.StashKey[bool]()
#: Seconds by which what needs several processors is before all others: workers do not start together.
HEAD_START = 3.0
#: Seconds that a scenario is taken to last which nobody knows.
USUAL = 10.0
_HERE = Path(__file__).parent
_HISTORY = Path("reports", "history", "boots.jsonl")
_log = logging.getLogger("lab")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What can be asked of the lab on the command line."""
    group = parser.getgroup("lab")
    group.addoption(
        "--lab-out",
        default="reports/out",
        help="directory for results; {arch} in it is each scenario's architecture (default: reports/out)",
    )
    group.addoption(
        "--lab-retries",
        type=int,
        default=0,
        metavar="N",
        help="try a scenario again when the host failed it; what passes then is flaky (default: 0)",
    )
    group.addoption(
        "--lab-hold",
        action="store_const",
        const="failed",
        help="keep the machines of a failed scenario on until Ctrl-C, and say how to attach",
    )
    group.addoption(
        "--lab-hold-all",
        dest="lab_hold",
        action="store_const",
        const="all",
        help="the same when it passes, too",
    )
    group.addoption(
        "--lab-seed",
        type=int,
        default=0,
        metavar="N",
        help="what the faults of cables draw from (default: 0)",
    )
    group.addoption("--lab-live", action="store_true", help="say what machines do while a scenario runs")
    option.add(group)


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker; has what takes long said on the terminal."""
    if config.getoption("lab_hold") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--lab-hold needs the terminal: add -n 0")
    config.pluginmanager.register(Retries(), "lab-retries")
    announcer = Announcer()
    announcer.open()
    config.add_cleanup(announcer.close)
    config.addinivalue_line(
        "markers",
        "lab(vcpus, memory, boards, group, seconds): processors working at once, MiB of all machines, "
        "boards' names; the xdist group that keeps scenarios on one worker; how long it takes, about",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Gives every worker of xdist the same idea of how long scenarios take."""
    node.workerinput["lab_seconds"] = took(Path(node.config.rootpath, _HISTORY))


def took(path: Path) -> dict[str, float]:
    """Seconds that each scenario took when it was last reported, by pytest's name.

    Args:
        path: the history of earlier runs; nothing is known when it is not there, or is no history.
    """
    try:
        return {run.record.nodeid: run.record.duration for run in history.read(path)}
    except ReportError:
        return {}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Tells xdist which scenarios belong together, which of them a board runs, and in which order.

    What needs more than one processor comes first: later, all others would have to end before it begins.
    Then a worker runs the longest first, so that no other waits for it in the end. pytest has an order of
    its own, by fixtures, and ours has to come after it.
    """
    option.select(config, items)
    seconds = getattr(config, "workerinput", {}).get("lab_seconds", {})
    # By item: xdist gives those of a group another name.
    order = {}
    for item in items:
        try:
            told = marked(item)
        except MisuseError:
            told = {}  # said when its turn comes
        order[item] = not _wide(item), -seconds.get(item.nodeid, told.get("seconds", USUAL))
        if "group" in told:
            item.add_marker(pytest.mark.xdist_group(told["group"]))
    result = yield
    # Others may have left some out, and may have made some.
    items.sort(key=lambda item: order.get(item, (True, -USUAL)))
    return result


def _wide(item: pytest.Item) -> bool:
    try:
        return need_of(item).vcpus > 1
    except MisuseError:
        return False  # said when its turn comes


def _let_pass(item: pytest.Item) -> None:
    """Let what needs the host for itself have it while it is empty; later, it would have to be emptied."""
    begun = item.config.stash.get(_BEGUN, False)
    item.config.stash[_BEGUN] = True
    if not begun and not _wide(item) and any(map(_wide, item.session.items)):
        time.sleep(HEAD_START)


def marked(item: pytest.Item) -> dict[str, Any]:
    """What a scenario's markers say; the nearest counts, and every marker's boards.

    Raises:
        MisuseError: one says what none can.
    """
    fields: dict[str, Any] = {}
    boards: list[str] = []
    for marker in reversed(list(item.iter_markers("lab"))):
        if marker.args or set(marker.kwargs) - {"vcpus", "memory", "boards", "group", "seconds"}:
            raise MisuseError(f"{item.nodeid}: lab() takes vcpus=, memory=, boards=, group=, seconds=")
        for name in ("vcpus", "memory", "seconds"):
            if not isinstance(marker.kwargs.get(name, 0), int | float):
                raise MisuseError(f"{item.nodeid}: lab() takes a number as {name}=")
        fields |= marker.kwargs
        boards += marker.kwargs.get("boards", ())
    return fields | {"boards": tuple(dict.fromkeys(boards))}


def need_of(item: pytest.Item) -> Need:
    """What a scenario needs of the host.

    Raises:
        MisuseError: its markers say what no scenario can need.
    """
    return Need(**{name: value for name, value in marked(item).items() if name in Need.__annotations__})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Holds a scenario's lease from before its first fixture to after its last.

    Outermost, so that waiting for others is none of the scenario's own time.
    """
    if "lab" not in getattr(item, "fixturenames", ()):
        return (yield)
    _let_pass(item)
    try:
        lease = acquire(
            need_of(item), who=item.nodeid, on_wait=functools.partial(_log.info, "%s waits: %s", item.nodeid)
        )
    except LabError as error:
        # A hook that raises ends the whole run; a fixture that raises ends one scenario.
        item.stash[_REFUSED] = error
        return (yield)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lease)
        stack.enter_context(_kept_busy(item))
        if item.config.getoption("--lab-live"):
            stack.enter_context(watching(item.nodeid, lambda: item.stash.get(_LAB, None)))
        return (yield)


@contextlib.contextmanager
def _kept_busy(item: pytest.Item) -> Iterator[None]:
    """Adds to a scenario's record what it and its machines made of their processors."""
    before = os.times()
    yield
    spent = [now - then for now, then in zip(os.times(), before, strict=True)]
    # The machines are off and waited for: what they used counts as children's.
    path = _record_path(item)
    with contextlib.suppress(FileNotFoundError):  # with --setup-only
        fields = json.loads(path.read_bytes())
        fields["busy"] = round(sum(spent[:4]) / max(spent[4], 1e-3), 2)
        write(path, json.dumps(fields, indent=1) + "\n")


class Retries:
    """Runs a scenario again after the host, and nothing else, has failed it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """As pytest's own, several times."""
        left = item.config.getoption("--lab-retries")
        if left <= 0 or "lab" not in getattr(item, "fixturenames", ()):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        while True:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            failed = [report for report in reports if report.failed]
            owners = {dict(report.user_properties).get("owner") for report in failed}
            if left <= 0 or owners != {"infrastructure"}:
                break
            left -= 1
            del item.stash[_FAILURE]
            item.stash.setdefault(_TRIES, []).append(str(dict(failed[0].user_properties)["what"]))
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def pytest_report_teststatus(
    report: pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """What passed only when tried again is not called passed."""
    if report.when == "call" and report.passed and ("flaky", True) in report.user_properties:
        return "flaky", "Y", ("FLAKY", {"yellow": True})
    return None


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab of this scenario's own; everything in it is gone when the scenario ends."""
    refused = request.node.stash.get(_REFUSED, None)
    if refused is not None:
        raise refused
    seed = request.config.getoption("--lab-seed")
    with Lab(seed=seed, memory=need_of(request.node).memory) as made:
        request.node.stash[_LAB] = made
        yield made


@pytest.fixture(scope="session")
def board(pytestconfig: pytest.Config) -> Description | None:
    """The board that is the machine under test, when `--board` names one."""
    return option.chosen(pytestconfig)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> "Record":
    """Says what this scenario was, for the report."""
    return Record(request.node.stash.setdefault(_RECORD, {}))


class Record:
    """What the report tells of a scenario."""

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
        """Set it; what is set last counts.

        `mode` is what the boot was allowed, if there is such a thing; the phases began at `power_on`
        (`time.monotonic()`), or have ended just now.
        """
        self._fields.update(
            scenario=scenario,
            arch=arch,
            topology=topology,
            phases=dict(phases),
            kernel=kernel,
            accel=accel,
            firmware=firmware,
            mode=mode,
        )
        lasted = sum(phases.values())
        attach_phases(phases, time.time() - (time.monotonic() - power_on if power_on else lasted))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A scenario does not pass when one of its machines died and no wait of its own has said so.

    Nor does it fail for what it found on a segment that had ended: that is the host's.
    """
    try:
        result = yield
    except Exception as error:
        try:
            if made := item.stash.get(_LAB, None):
                made.check_segments()
        except InfrastructureError as ended:
            raise ended from error
        raise
    if made := item.stash.get(_LAB, None):
        made.check()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach consoles and marks while the machines still stand; after a failure also what they are."""
    scenario = "lab" in getattr(item, "fixturenames", ())
    error = call.excinfo.value if call.excinfo is not None else None
    if scenario and call.excinfo is not None and isinstance(error, LabError):
        _own_lines(call.excinfo)
    report = yield
    if not scenario:
        return report
    tries = item.stash.get(_TRIES, [])
    owner = owner_of(error, when=call.when) if error is not None else ""
    if report.failed:
        what = error.what if isinstance(error, LabError) else clean(str(error))
        report.user_properties += [("owner", owner), ("what", what[:300])]
        # What failed first counts: that the teardown then met the host does not make it the host's.
        outcome = "failed" if call.when == "call" else "error"
        item.stash.setdefault(_FAILURE, {"owner": owner, "what": what[:300], "outcome": outcome})
    elif call.when == "call" and report.passed and tries:
        report.user_properties.append(("flaky", True))
        allure.dynamic.label("flaky", tries[0])
    # A setup that went well says nothing yet; neither does a teardown, unless it fails.
    if call.when != "call" and report.passed:
        return report
    made = item.stash.get(_LAB, None)
    if made is not None:
        attach(made, report, _out(item) / "evidence" / _name(item))
    if report.failed:
        report.sections.append(("lab: again", reproduce(item)))
        allure.dynamic.label("owner", owner)
    allure.dynamic.label("arch", _arch(item))
    write(_record_path(item), json.dumps(record_of(item, report, made), indent=1) + "\n")
    if made is not None and item.config.getoption("lab_hold") in ("failed" if report.failed else "", "all"):
        _hold(item, made, report)
    return report


def _hold(item: pytest.Item, made: Lab, report: pytest.TestReport) -> None:
    # A person takes longer than any scenario may.
    if item.config.pluginmanager.hasplugin("timeout"):
        item.ihook.pytest_timeout_cancel_timer(item=item)
    capture = item.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(f"\n{item.nodeid}: {report.outcome}\n{report.longreprtext}", flush=True)
        hold(made, functools.partial(print, flush=True))
    if item.config.getoption("lab_hold") == "all":
        item.session.shouldstop = "the scenario that was to be held has been let go"


def _own_lines(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Take the lab's own frames out: where the scenario stood counts, not how the lab noticed."""
    entry: TracebackType | None = excinfo.tb
    while entry is not None:
        following = entry.tb_next
        if following is not None and _HERE in Path(following.tb_frame.f_code.co_filename).parents:
            entry.tb_next = following.tb_next
        else:
            entry = following
    excinfo.traceback = Traceback(excinfo.tb)


def reproduce(item: pytest.Item) -> str:
    """The command that runs one scenario again, as it was run."""
    told = {name: os.environ.get(name) for name in ("LAB_ACCEL", "LAB_TIMEOUT_FACTOR")}
    before = "".join(f"{name}={shlex.quote(value)} " for name, value in told.items() if value)
    words = ["python", "-m", "pytest", _nodeid(item), f"--lab-seed={item.config.getoption('--lab-seed')}"]
    if seconds := item.config.getoption("--timeout", None):
        words.append(f"--timeout={seconds:g}")
    if board := item.config.getoption("--board"):
        words.append(f"--board={board}")
    return before + shlex.join(words)


def record_of(item: pytest.Item, report: pytest.TestReport, made: Lab | None) -> dict[str, Any]:
    """A scenario's line in the summary.

    Args:
        item: the test.
        report: of its last phase so far.
        made: its lab; None when it did not come to that.
    """
    callspec = getattr(item, "callspec", None)
    machines = list(made.machines.values()) if made else []
    on = [vm for vm in machines if vm.power_on]
    fields: dict[str, Any] = {
        "scenario": getattr(item, "originalname", None) or item.name,
        "arch": machines[0].arch if machines else "",
        "topology": ", ".join(f"{vm.name} {vm.arch}" for vm in machines),
        "phases": {},
        "accel": (accel := machines[0].facts.get("accel", "") if machines else ""),
        "refused": host.refused(machines[0].arch) if accel == "tcg" else "",
        "kernel": "",
        "firmware": machines[0].facts.get("firmware", "") if machines else "",
        "ended": round(time.time(), 3),
        "nodes": msgspec.to_builtins(made.nodes() if made else []),
        "tracks": msgspec.to_builtins(tracks(machines)),
        "stage": ", ".join(f"{vm.name} {vm.facts['stage']}" for vm in on if "stage" in vm.facts),
        "booted": not on or any("stage" not in vm.facts for vm in on),
    }
    if callspec is not None and "arch" in callspec.params:
        fields["arch"] = callspec.params["arch"]
    told = item.stash.get(_RECORD, None)
    fields |= told or {}
    fields["nodeid"] = _nodeid(item)
    fields["outcome"] = report.outcome
    if report.failed:
        failure = item.stash.get(_FAILURE, {})
        fields |= failure
    if ("flaky", True) in report.user_properties:
        fields["outcome"] = "flaky"
    if tries := item.stash.get(_TRIES, []):
        fields["tries"] = tries
    fields["duration"] = round(report.duration, 3)
    return fields


def _nodeid(item: pytest.Item) -> str:
    # xdist adds a group's name.
    return item.nodeid.partition("@")[0]


def _out(item: pytest.Item) -> Path:
    return Path(item.config.rootpath, item.config.getoption("--lab-out").replace("{arch}", _arch(item)))


def _arch(item: pytest.Item) -> str:
    """The architecture a scenario is run for; the host's own, where it is for none."""
    callspec = getattr(item, "callspec", None)
    own = platform.machine()
    told = callspec.params.get("arch") if callspec else None
    return str(told or host.ARCHES.get(own, own))


def _record_path(item: pytest.Item) -> Path:
    return _out(item) / "records" / f"{_name(item)}.json"


def _name(item: pytest.Item) -> str:
    return hashlib.sha256(_nodeid(item).encode()).hexdigest()[:16]
