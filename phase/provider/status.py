"""The status report of a provider: only what really runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Annotated

import msgspec

from phase.provider.catalog import Release
from phase.provider.health import Announced, Problem
from phase.provider.metrics import Metrics
from phase.provider.store import Store

#: What `/status` gives as the problem of an advertisement until the first try is over.
STARTING = "starting"


class MdnsInterface(msgspec.Struct, frozen=True):
    """Multicast DNS on one interface: the addresses told there, and `answering` or why it does not."""

    name: str
    addresses: list[str]
    state: str


@dataclass
class Announcement:
    """How one way to tell others of this provider is doing."""

    #: Whether it was asked for.
    wanted: bool = False
    #: Whether the first try is still under way.
    starting: bool = False
    #: Why others cannot find this provider that way; empty where they can.
    problem: str = "not asked for"

    def begin(self) -> None:
        """The first try begins."""
        self.wanted = self.starting = True

    def tried(self, problem: str) -> None:
        """A try is over.

        Args:
            problem: why it failed; empty where it did not.
        """
        self.starting, self.problem = False, problem

    def _announced(self, there: bool) -> Announced:
        working = there and not self.starting and not self.problem
        return Announced(self.wanted, working, self.problem if self.wanted and not self.starting else "")

    def _shown(self) -> str:
        return STARTING if self.starting else self.problem


@dataclass
class DhtTold(Announcement):
    """What the DHT knows of this provider. Its DHT node keeps this up to date."""

    running: bool = False
    #: The address that other nodes give for this provider: `HOST:PORT`.
    address: str = ""
    #: Other nodes known; and of the announcement with the fewest keepers, how many nodes keep it.
    nodes: int = 0
    keepers: int = 0
    #: Announcements of any provider that this node keeps.
    held: int = 0

    def status(self) -> Announced:
        """How it is at this moment."""
        return self._announced(self.running)

    def report(self) -> "DhtStatus":
        """What `/status` says of it."""
        return DhtStatus(self.running, self._shown(), self.address, self.nodes, self.keepers, self.held)


@dataclass
class Advertisement(Announcement):
    """What multicast DNS tells of this provider. The advertiser keeps this up to date."""

    #: Names registered by multicast DNS, at this moment.
    instances: list[str] = field(default_factory=list)
    #: Names that others have registered, at this moment; a hint, like everything found that way.
    seen: set[str] = field(default_factory=set)
    #: On each interface: its name, the addresses told there, and whether it is answered on.
    interfaces: list[MdnsInterface] = field(default_factory=list)
    dht: DhtTold = field(default_factory=DhtTold)

    def status(self) -> Announced:
        """How it is at this moment."""
        return self._announced(bool(self.instances))

    def report(self) -> "MdnsStatus":
        """What `/status` says of it."""
        return MdnsStatus(
            bool(self.instances),
            list(self.instances),
            self._shown(),
            sorted(self.seen.difference(self.instances)),
            list(self.interfaces),
        )


#: Clients read this from any provider: the bound keeps a number no larger than a counter can be.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class ReleaseStatus(msgspec.Struct, frozen=True):
    """One release on offer."""

    channel: str
    arch: str
    version: _Count
    release: str
    expires: str
    manifest: str
    artifacts: dict[str, _Count]


class MdnsStatus(msgspec.Struct, frozen=True):
    """Multicast DNS."""

    running: bool
    instances: list[str]
    problem: str
    seen: list[str]
    #: Older providers leave it out.
    interfaces: list[MdnsInterface] = []


class DhtStatus(msgspec.Struct, frozen=True):
    """The distributed hash table."""

    running: bool = False
    problem: str = ""
    address: str = ""
    nodes: _Count = 0
    keepers: _Count = 0
    held: _Count = 0


class ProblemStatus(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    part: str
    text: str


class Status(msgspec.Struct, frozen=True):
    """The answer to `GET /status`."""

    service: str
    version: str
    uptime_seconds: float
    time: float
    repository_problem: str
    repository_loads: _Count
    releases: list[ReleaseStatus]
    mdns: MdnsStatus
    active_requests: _Count
    requests: _Count
    bytes_sent: _Count
    #: Older providers leave out this field and those below it.
    dht: DhtStatus = DhtStatus()
    #: What is wrong, by part of the provider; a newer one may know other parts.
    problems: list[ProblemStatus] = []
    #: Seconds until each role's signature expires; negative since it has.
    expires_seconds: dict[str, float] = {}
    #: Files that the releases name, by what is known of them.
    blobs: dict[str, _Count] = {}
    task_failures: dict[str, _Count] = {}
    workers: _Count = 1
    worker_restarts: _Count = 0


def own_version() -> str:
    """Version of Phase; `unknown` where it runs from a tree that was never installed."""
    try:
        return metadata.version("phase")
    except metadata.PackageNotFoundError:
        return "unknown"


def status(
    store: Store,
    metrics: Metrics,
    advertisement: Advertisement,
    *,
    now: float,
    problems: Sequence[Problem] = (),
    workers: tuple[int, int] = (1, 0),
) -> Status:
    """Make the report.

    Args:
        store: the repository.
        metrics: the counters.
        advertisement: what is advertised.
        now: seconds since the epoch.
        problems: what is wrong.
        workers: how many processes serve, and how often one was started anew.
    """
    current = store.current()
    return Status(
        service="phase-provider",
        version=own_version(),
        uptime_seconds=round(metrics.uptime, 3),
        time=now,
        repository_problem=store.problem,
        repository_loads=max(store.loads, metrics.loads),
        releases=[_release(each) for each in current.releases.values()],
        mdns=advertisement.report(),
        active_requests=metrics.active,
        requests=sum(metrics.requests.values()),
        bytes_sent=sum(metrics.bytes_sent.values()),
        dht=advertisement.dht.report(),
        problems=[ProblemStatus(problem.part, problem.text) for problem in problems],
        expires_seconds={role: round(until - now, 1) for role, until in sorted(current.expires.items())},
        blobs=dict(metrics.blobs),
        task_failures=dict(metrics.failures),
        workers=workers[0],
        worker_restarts=workers[1],
    )


def _release(release: Release) -> ReleaseStatus:
    return ReleaseStatus(
        release.channel,
        release.arch,
        release.version,
        release.release,
        release.expires,
        f"/{release.channel}/{release.arch}/manifest.json",
        {name: blob.length for name, blob in sorted(release.artifacts.items())},
    )
