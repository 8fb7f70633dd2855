"""Everything the doctor looks at, in one examination."""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from lab.clean import cache_directory
from lab.doctor.accel import Ladder, climb
from lab.doctor.needs import PURPOSES, needed
from lab.doctor.setup import Host, host, install_command
from lab.doctor.tools import Tool, look_all, packages_for

_GIB = 1 << 30
#: Images, environments and Node's packages, with room to build the next ones beside them.
DISK_BYTES = 6 * _GIB
#: Two machines, their firmware and the tools beside them.
MEMORY_BYTES = 3 * _GIB
CORES = 2


class Measure(NamedTuple):
    """One quantity of the host: its name, what is there, what it takes, and what to do when it is short."""

    name: str
    found: int
    wanted: int
    unit: str
    remedy: str

    @property
    def ok(self) -> bool:
        """Whether there is enough."""
        return self.found >= self.wanted


class Health(NamedTuple):
    """What the doctor found.

    Attributes:
        host: the distribution and who may install packages.
        tools: every need, found or not.
        measures: disk, memory, cores.
        accel: the accelerator's ladder.
        remedy: the one command that brings what is missing; empty when nothing is.
    """

    host: Host
    tools: tuple[Tool, ...]
    measures: tuple[Measure, ...]
    accel: Ladder
    remedy: str

    @property
    def ready(self) -> bool:
        """Whether the lab can run; it runs without KVM, and on one core, only slower."""
        return all(tool.state == "ok" for tool in self.tools) and all(
            measure.ok for measure in self.measures if measure.name != "cores"
        )


def examine(
    purpose: str = PURPOSES[-1], arches: Collection[str] = (), *, accelerator: Callable[[], Ladder] = climb
) -> Health:
    """Looks at everything; takes a second, some more where KVM hangs.

    Args:
        purpose: what this machine is for, one of `PURPOSES`.
        arches: of the machines that it runs; empty for every architecture.
        accelerator: climbs the accelerator's ladder.
    """
    here = host()
    tools = look_all(needed(purpose, arches))
    return Health(here, tuple(tools), _measures(), accelerator(), remedy(here, tools))


def remedy(here: Host, tools: list[Tool]) -> str:
    """What to type to get what is missing."""
    packages = packages_for(tools)
    if not packages:
        return ""
    if here.debian:
        return install_command(packages, () if here.become == () else ("sudo",))
    return f"{here.name}: install what is marked with its own tools (Debian's names: {' '.join(packages)})"


def _measures() -> tuple[Measure, ...]:
    cache = cache_directory()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    return (
        Measure(
            "disk", shutil.disk_usage(there).free, DISK_BYTES, "bytes", f"Free some space below {there}."
        ),
        Measure("memory", _memory(), MEMORY_BYTES, "bytes", "Close something, or add swap."),
        Measure("cores", processors(), CORES, "", "It works on one, about twice as slowly."),
    )


def processors() -> int:
    """Processors that this process may run on; all of the host's where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory(told: Path = Path("/proc/meminfo")) -> int:
    """Bytes that can be had."""
    try:
        lines = told.read_text(encoding="ascii").splitlines()
    except OSError:
        # Not Linux: what is there in all. psutil knows better, but may not be installed yet.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
