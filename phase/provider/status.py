"""What a provider says about itself: only what really runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Annotated

import msgspec

from phase.discovery.records import STARTING
from phase.provider.health import Announced, Problem
from phase.provider.metrics import Metrics
from phase.provider.store import Store


class MdnsInterface(msgspec.Struct, frozen=True):
    """Multicast DNS on one interface: what is told there, and `answering` or what keeps it from that."""

    name: str
    addresses: list[str]
    state: str


@dataclass
class DhtTold:
    """What of this provider the DHT knows; kept by its node."""

    running: bool = False
    #: Why nothing is announced, or nobody keeps it.
    problem: str = "not asked for"
    #: Where others are told that this provider is: `HOST:PORT`.
    address: str = ""
    #: Other nodes known, and those of them that keep the announcement kept by fewest.
    nodes: int = 0
    keepers: int = 0
    #: Announcements kept here, for anybody.
    held: int = 0
    #: Whether taking part was asked for.
    wanted: bool = False

    def status(self) -> Announced:
        """How it is at this moment."""
        return _announced(self.wanted, self.running, self.problem)


@dataclass
class Advertisement:
    """What of this provider can be found on the network; kept by the advertiser."""

    #: Names registered by multicast DNS, at this moment.
    instances: list[str] = field(default_factory=list)
    #: Why nothing is advertised.
    problem: str = "not asked for"
    #: Names that others have registered, at this moment; a hint, like everything found that way.
    seen: set[str] = field(default_factory=set)
    #: On each interface: its name, the addresses told there, and whether it is answered on.
    interfaces: list[MdnsInterface] = field(default_factory=list)
    dht: DhtTold = field(default_factory=DhtTold)
    #: Whether advertising was asked for.
    wanted: bool = False

    def status(self) -> Announced:
        """How it is at this moment."""
        return _announced(self.wanted, bool(self.instances), self.problem)


def _announced(wanted: bool, there: bool, problem: str) -> Announced:
    starting = problem == STARTING
    return Announced(wanted, there and not problem, "" if starting or not wanted else problem)


#: Whoever reads this may have it from anybody: no number is larger than a counter can be.
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
    #: Older providers say nothing of it.
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
    #: Older providers say nothing of it, nor of what follows.
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
    """Put together what is known.

    Args:
        store: the repository.
        metrics: the counters.
        advertisement: what is advertised.
        now: seconds since the epoch.
        problems: what is wrong.
        workers: how many processes serve, and how often one was started anew.
    """
    releases = store.current().releases.values()
    return Status(
        service="phase-provider",
        version=own_version(),
        uptime_seconds=round(metrics.uptime, 3),
        time=now,
        repository_problem=store.problem,
        repository_loads=max(store.loads, metrics.loads),
        releases=[
            ReleaseStatus(
                release.channel,
                release.arch,
                release.version,
                release.release,
                release.expires,
                f"/{release.channel}/{release.arch}/manifest.json",
                {name: blob.length for name, blob in sorted(release.artifacts.items())},
            )
            for release in releases
        ],
        mdns=MdnsStatus(
            bool(advertisement.instances),
            list(advertisement.instances),
            advertisement.problem,
            sorted(advertisement.seen.difference(advertisement.instances)),
            list(advertisement.interfaces),
        ),
        active_requests=metrics.active,
        requests=sum(metrics.requests.values()),
        bytes_sent=sum(metrics.bytes_sent.values()),
        dht=DhtStatus(
            advertisement.dht.running,
            advertisement.dht.problem,
            advertisement.dht.address,
            advertisement.dht.nodes,
            advertisement.dht.keepers,
            advertisement.dht.held,
        ),
        problems=[ProblemStatus(problem.part, problem.text) for problem in problems],
        expires_seconds={
            role: round(until - now, 1) for role, until in sorted(store.current().expires.items())
        },
        blobs=dict(metrics.blobs),
        task_failures=dict(metrics.failures),
        workers=workers[0],
        worker_restarts=workers[1],
    )
