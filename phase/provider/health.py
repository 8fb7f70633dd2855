"""The problems of a provider: everything that can make a boot fail, by the part it belongs to."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec


class Part(StrEnum):
    """A part of a provider that can fail. Each has a metric: `phase_provider_degraded{part="..."}`."""

    #: The newest release cannot be read; the one before is served.
    REPOSITORY = "repository"
    #: A signature has expired: no client believes what is served.
    EXPIRY = "expiry"
    #: The clock of this machine is plainly wrong.
    CLOCK = "clock"
    #: A file that a release names is missing, or has other bytes.
    BLOBS = "blobs"
    #: A background task fails, such as the upkeep of files that are signed here.
    TASKS = "tasks"
    #: This provider cannot be found by multicast DNS, and should be.
    MDNS = "mdns"
    #: This provider cannot be found by the DHT, and should be.
    DHT = "dht"
    #: A worker process has ended, or does not answer.
    WORKERS = "workers"
    #: There are too few file descriptors or too little memory for connections.
    DESCRIPTORS = "descriptors"
    #: Lines of a log are lost.
    LOG = "log"


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong.

    Attributes:
        part: of the provider.
        text: what is wrong with it, for people.
    """

    part: Part
    text: str


class Announced(NamedTuple):
    """The state of one way to tell others of this provider.

    Attributes:
        wanted: it was asked for.
        working: as far as is known, others can find this provider that way at this moment.
        problem: why not; empty if it works, is still starting or is not wanted.
    """

    wanted: bool
    working: bool
    problem: str


class Announcer(Protocol):
    """A way to tell others of this provider: multicast DNS, the DHT."""

    def status(self) -> Announced:
        """The state at this moment."""


def announcing(part: Part, told: Announcer) -> list[Problem]:
    """The problem of one way to tell others, if it has one."""
    found = told.status()
    return [Problem(part, found.problem)] if found.wanted and found.problem else []


class Health:
    """Collects the problems that the parts of this process report."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], list[Problem]]] = []

    def add(self, *sources: Callable[[], list[Problem]]) -> None:
        """Ask these as well from now on."""
        self._sources += sources

    def problems(self) -> list[Problem]:
        """All problems of this process; each text once."""
        return sorted({problem for source in self._sources for problem in source()})
