"""Which scenario runs when, and with how much of the host."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import InfrastructureError, LabError, MisuseError
from lab.leases import Lease, Need, acquire
from lab.plugin.recording import nodeid_of
from lab.report import history
from lab.report.errors import ReportError

#: Seconds by which what needs several processors is before all others: workers do not start together.
HEAD_START = 3.0
#: Seconds that a scenario is taken to last when no run and no marker says.
USUAL = 10.0
HISTORY = Path("reports", "history", "boots.jsonl")
_WORDS = ("vcpus", "memory", "boards", "group", "seconds")
#: Whether this worker has had its first scenario.
_BEGUN = pytest.StashKey[bool]()
#: The lease of a module whose tests share machines.
_LEASE = pytest.StashKey[Lease]()
#: Why a scenario, or a module, was given no lease.
REFUSED = pytest.StashKey[LabError]()
_log = logging.getLogger("lab")


def uses(item: pytest.Item, fixture: str) -> bool:
    """Whether a test asks for a fixture by its name, itself or through others."""
    return fixture in getattr(item, "fixturenames", ())


def marked(node: pytest.Item | pytest.Module) -> dict[str, Any]:
    """What a scenario's markers say; the nearest counts, and every marker's boards.

    Args:
        node: the scenario, or a module whose tests share machines.

    Raises:
        MisuseError: a marker says something that makes no sense.
    """
    fields: dict[str, Any] = {}
    boards: list[str] = []
    for marker in reversed(list(node.iter_markers("lab"))):
        if marker.args or set(marker.kwargs) - set(_WORDS):
            raise MisuseError(f"{node.nodeid}: lab() takes {', '.join(f'{word}=' for word in _WORDS)}")
        for name in ("vcpus", "memory", "seconds"):
            value = marker.kwargs.get(name, 0)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise MisuseError(f"{node.nodeid}: lab() takes a number as {name}=, not {value!r}")
        group, named = marker.kwargs.get("group", ""), marker.kwargs.get("boards", ())
        if not isinstance(group, str):
            raise MisuseError(f"{node.nodeid}: lab() takes a name as group=, not {group!r}")
        if not isinstance(named, list | tuple) or not all(isinstance(board, str) for board in named):
            raise MisuseError(f"{node.nodeid}: lab() takes a list of names as boards=, not {named!r}")
        fields |= marker.kwargs
        boards += named
    return fields | {"boards": tuple(dict.fromkeys(boards))}


def need_of(node: pytest.Item | pytest.Module) -> Need:
    """What a scenario, or a module whose tests share machines, needs of the host.

    Raises:
        MisuseError: its markers say something that makes no sense.
    """
    return Need(**{name: value for name, value in marked(node).items() if name in Need.__annotations__})


def took(path: Path) -> dict[str, float]:
    """Seconds that each scenario took when it was last reported, by pytest's name.

    Args:
        path: the history of earlier runs; empty when it is not there, or is not a history.
    """
    try:
        return {run.record.nodeid: run.record.duration for run in history.read(path)}
    except ReportError:
        return {}


class Order:
    """The order in which a worker of xdist takes scenarios.

    What needs more than one processor comes first: later, all others would have to end before it begins.
    Then the longest, so that no other worker waits for it in the end. Where one process runs everything,
    nothing is gained, and pytest's own order sets each module's fixtures up once.
    """

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        worker = getattr(config, "workerinput", None)
        self._sorts = worker is not None
        seconds = (worker or {}).get("lab_seconds", {})
        # By item: xdist gives those of a group another name.
        self._keys: dict[pytest.Item, tuple[bool, float]] = {}
        for item in items:
            try:
                told = marked(item)
            except MisuseError:
                told = {}  # raised when its turn comes
            expected = seconds.get(nodeid_of(item), told.get("seconds", USUAL))
            self._keys[item] = not _wide(item), -expected
            if "group" in told:
                item.add_marker(pytest.mark.xdist_group(told["group"]))

    def sort(self, items: list[pytest.Item]) -> None:
        """Put them in this order. Other plugins may have removed some, and added some."""
        if self._sorts:
            items.sort(key=lambda item: self._keys.get(item, (True, -USUAL)))


def _wide(item: pytest.Item) -> bool:
    try:
        return need_of(item).vcpus > 1
    except MisuseError:
        return False  # raised when its turn comes


def _let_pass(item: pytest.Item) -> None:
    """Let what needs the host for itself have it while it is empty; later, it would have to be emptied."""
    begun = item.config.stash.get(_BEGUN, False) or not hasattr(item.config, "workerinput")
    item.config.stash[_BEGUN] = True
    if not begun and not _wide(item) and any(map(_wide, item.session.items)):
        time.sleep(HEAD_START)


def lease(node: pytest.Item | pytest.Module) -> Lease:
    """Wait for what a scenario or a module needs of the host, and take it.

    Raises:
        LabError: it cannot be had.
    """
    waits = functools.partial(_log.info, "%s waits: %s", node.nodeid)
    try:
        return acquire(need_of(node), who=node.nodeid, on_wait=waits)
    except OSError as error:
        raise InfrastructureError(f"{node.nodeid}: leases cannot be kept: {error}") from error


@contextlib.contextmanager
def leased(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Hold a scenario's lease, or that of its module until the module's last test has ended.

    An error is kept in the stash of the item or module, for the fixture to raise: a hook that raises ends
    the whole run, a fixture that raises ends one scenario.
    """
    module = item.getparent(pytest.Module)
    shared = module is not None and uses(item, "module_lab")
    if uses(item, "lab") and not shared and not _out_of_scope(item):
        _let_pass(item)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lease(item))
            except LabError as error:
                item.stash[REFUSED] = error
            yield
        return
    if shared and module is not None and _LEASE not in module.stash and REFUSED not in module.stash:
        _let_pass(item)
        try:
            module.stash[_LEASE] = lease(module)
        except LabError as error:
            module.stash[REFUSED] = error
    try:
        yield
    finally:
        last = nextitem is None or nextitem.getparent(pytest.Module) is not module
        if module is not None and last and _LEASE in module.stash:
            module.stash[_LEASE].release()
            del module.stash[_LEASE]


def _out_of_scope(item: pytest.Item) -> bool:
    """Whether a fixture that outlives the test asks for `lab`: pytest refuses that, so nothing is leased."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info is not None else ()
    return any(
        found and found[-1].scope != "function" and "lab" in found[-1].argnames for found in definitions
    )
