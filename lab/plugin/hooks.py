"""The hooks of pytest, its options and fixtures. What they decide is in `scheduling` and `recording`."""

import contextlib
import functools
import os
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import allure
import pytest
from _pytest._code import Traceback
from _pytest.runner import runtestprotocol

from lab.board import option
from lab.board.description import Description
from lab.errors import InfrastructureError, LabError, MisuseError
from lab.evidence import attach
from lab.hold import hold
from lab.live import Announcer, watching
from lab.owners import owner_of
from lab.plugin import recording, scheduling
from lab.plugin.recording import LAB, TOLD, TRIES, Record
from lab.plugin.scheduling import REFUSED, uses
from lab.topology import Lab

_ANNOUNCER = pytest.StashKey[Announcer]()
#: Why results cannot be written.
_NO_RESULTS = pytest.StashKey[LabError]()
_CODE = Path(__file__).parents[1]
#: The fixtures that make a test a scenario.
_FIXTURES = ("lab", "module_lab")


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
    """Names the marker."""
    if config.getoption("lab_hold") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--lab-hold needs the terminal: add -n 0")
    config.pluginmanager.register(Retries(), "lab-retries")
    # Made here: later, the test runner captures standard error.
    config.stash[_ANNOUNCER] = Announcer()
    config.add_cleanup(config.stash[_ANNOUNCER].close)
    config.addinivalue_line(
        "markers",
        "lab(vcpus, memory, boards, group, seconds): processors working at once, MiB of all machines, "
        "boards' names; the xdist group that keeps scenarios on one worker; how long it takes, about",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Gives every worker of xdist the same idea of how long scenarios take."""
    node.workerinput["lab_seconds"] = scheduling.took(Path(node.config.rootpath, scheduling.HISTORY))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Tells xdist which scenarios belong together, which of them a board runs, and in which order.

    pytest has an order of its own, by fixtures, and ours has to come after it.
    """
    for item in items:
        recording.remember_name(item)
    option.select(config, items)
    order = scheduling.Order(config, items)
    result = yield
    order.sort(items)
    return result


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Begins this run's results, where it has scenarios; has what takes long said on the terminal."""
    config = session.config
    scenarios = [item for item in session.items if any(uses(item, name) for name in _FIXTURES)]
    if not scenarios or config.getoption("collectonly", False):
        return
    config.stash[_ANNOUNCER].open()
    try:
        recording.begin(config, scenarios)
    except LabError as error:
        if not hasattr(config, "workerinput"):
            raise pytest.UsageError(f"lab: {error}") from error
        # A worker that raises here ends in a traceback of xdist's: each scenario says it instead.
        config.stash[_NO_RESULTS] = error


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Holds a scenario's lease from before its first fixture to after its last, and keeps its record.

    Outermost, so that waiting for others does not count as the scenario's own time.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(scheduling.leased(item, nextitem))
        stack.enter_context(_recorded(item))
        if item.config.getoption("--lab-live") and _is_scenario(item):
            stack.enter_context(watching(item.nodeid, lambda: _lab_of(item)))
        return (yield)


@contextlib.contextmanager
def _recorded(item: pytest.Item) -> Iterator[None]:
    """Write a scenario's record: when it begins, and when it has ended."""
    if _is_scenario(item):
        _open_record(item)
    before = os.times()
    yield
    spent = [now - then for now, then in zip(os.times(), before, strict=True)]
    if _is_scenario(item):
        # The machines are off and waited for: what they used counts as children's.
        recording.closed(item, round(sum(spent[:4]) / max(spent[4], 1e-3), 2))


def _open_record(item: pytest.Item) -> None:
    try:
        if error := item.config.stash.get(_NO_RESULTS, None):
            raise error
        recording.opened(item)
    except LabError as error:
        item.stash.setdefault(REFUSED, error)


def _is_scenario(item: pytest.Item) -> bool:
    """Whether a test uses the lab: it says so, or has asked for the fixture while it ran."""
    return any(uses(item, name) for name in _FIXTURES) or LAB in item.stash


def _lab_of(item: pytest.Item) -> Lab | None:
    module = item.getparent(pytest.Module)
    shared = module.stash.get(LAB, None) if module is not None and uses(item, "module_lab") else None
    return item.stash.get(LAB, None) or shared


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Raises why a scenario cannot run: here that ends nothing but the scenario."""
    if refused := item.stash.get(REFUSED, None):
        raise refused


class Retries:
    """Runs a scenario again after the host, and nothing else, has failed it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """As pytest's own, several times."""
        left = item.config.getoption("--lab-retries")
        if left <= 0 or not _is_scenario(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        while True:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            failed = [report for report in reports if report.failed]
            owners = {dict(report.user_properties).get("owner") for report in failed}
            if left <= 0 or owners != {"infrastructure"}:
                break
            left -= 1
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
    item: pytest.Item = request.node
    if uses(item, "module_lab"):
        raise MisuseError(
            f"{item.nodeid} uses lab and module_lab: it would wait for the host and hold a part of it; "
            "use one of them"
        )
    with contextlib.ExitStack() as stack:
        if not uses(item, "lab"):
            # Asked for while the test runs: nothing has been leased yet.
            stack.enter_context(scheduling.lease(item))
            _open_record(item)
            pytest_runtest_setup(item)
        seed = request.config.getoption("--lab-seed")
        made = stack.enter_context(Lab(seed=seed, memory=scheduling.need_of(item).memory))
        item.stash[LAB] = made
        yield made


@pytest.fixture(scope="module")
def module_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab that all tests of a module share, for machines that are booted once.

    What it needs of the host, the module's own marker says: `pytestmark = pytest.mark.lab(memory=512)`.
    """
    module: pytest.Module = request.node
    if refused := module.stash.get(REFUSED, None):
        raise refused
    seed = request.config.getoption("--lab-seed")
    with Lab(seed=seed, memory=scheduling.need_of(module).memory) as made:
        module.stash[LAB] = made
        yield made
        del module.stash[LAB]


@pytest.fixture(scope="session")
def board(pytestconfig: pytest.Config) -> Description | None:
    """The board that is the machine under test, when `--board` names one."""
    return option.chosen(pytestconfig)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Says what this scenario was, for the report."""
    return Record(request.node.stash.setdefault(TOLD, {}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A scenario does not pass when one of its machines died and no wait of its own has said so.

    Nor does it fail for what it found on a segment that had ended: that is the host's.
    """
    try:
        result = yield
    except Exception as error:
        try:
            if made := _lab_of(item):
                made.check_segments()
        except InfrastructureError as ended:
            raise ended from error
        raise
    if made := _lab_of(item):
        made.check()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach consoles and marks while the machines still stand; after a failure also what they are."""
    error = call.excinfo.value if call.excinfo is not None else None
    if call.excinfo is not None and isinstance(error, LabError) and _is_scenario(item):
        _own_lines(call.excinfo)
    report = yield
    if _is_scenario(item):
        try:
            _keep(item, call, report, error)
        except Exception:
            # An exception in this hook would end the whole run.
            report.sections.append(("lab: not everything could be kept", traceback.format_exc()))
    return report


def _keep(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, error: BaseException | None
) -> None:
    if call.when == "setup":
        recording.tried_again(item)
    owner = owner_of(error, when=call.when) if error is not None else ""
    if report.failed:
        recording.failed(item, report, error, owner)
    elif call.when == "call" and report.passed and (tries := item.stash.get(TRIES, [])):
        report.user_properties.append(("flaky", True))
        allure.dynamic.label("flaky", tries[0])
    # A setup that went well says nothing yet; neither does a teardown, unless it fails.
    if call.when != "call" and report.passed:
        return
    made = _lab_of(item)
    recording.draft(item, report, made)
    if made is not None:
        attach(made, report, recording.evidence_path(item))
    if report.failed and "ScopeMismatch" in report.longreprtext and "fixture lab " in report.longreprtext:
        report.sections.append(("lab: hint", "a lab ends with its test; module_lab lasts for a module"))
    if report.failed:
        report.sections.append(("lab: again", recording.again(item)))
        allure.dynamic.label("owner", owner)
    allure.dynamic.label("arch", recording.arch_of(item))
    if made is not None and item.config.getoption("lab_hold") in ("failed" if report.failed else "", "all"):
        _hold(item, made, report)


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
        if following is not None and _CODE in Path(following.tb_frame.f_code.co_filename).parents:
            entry.tb_next = following.tb_next
        else:
            entry = following
    excinfo.traceback = Traceback(excinfo.tb)
