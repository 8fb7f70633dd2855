"""The node's HTTP port: the gateway, and what operators and their monitoring ask for."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from phase.node.gateway import REFUSALS, Gateway, answered
from phase.node.refusals import Refusals
from phase.node.scheduler import Scheduler
from phase.node.serving import Serving
from phase.provider.accept import Acceptor, capacity
from phase.provider.background import Background
from phase.provider.guard import Connections, Guard
from phase.provider.limits import Limits
from phase.provider.metrics import Metrics, Values, formatted
from phase.provider.protocol import Protocol

if TYPE_CHECKING:
    # Loaded only where it is wanted.
    from phase.peer.relay import Relay

#: Seconds that answers under way may take at the end.
DRAIN_SECONDS = 5.0


class Web:
    """The HTTP server of a node.

    Args:
        gateway: for jobs.
        scheduler: the node's core.
        serving: what its peers are answered.
        tasks: where the node's tasks run.
        listeners: sockets that listen; closed at the end.
        relay: of peers, on the same port.
    """

    def __init__(
        self,
        gateway: Gateway,
        scheduler: Scheduler,
        serving: Serving,
        tasks: Background,
        listeners: Sequence[socket.socket],
        relay: "Relay | None" = None,
    ) -> None:
        self._relay = relay
        self._scheduler, self._serving, self._tasks = scheduler, serving, tasks
        self._metrics, self._limits, self._connections = Metrics(), Limits(), Connections()
        self._started = monotonic()
        app = web.Application(middlewares=[answered], client_max_size=1 << 10)
        app[REFUSALS] = self._refusals = Refusals()
        app.add_routes(gateway.routes())
        if relay is not None:
            app.add_routes(relay.routes())
        app.router.add_get("/health", self._health)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._measured)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0, handle_signals=False, access_log=None)
        self._listeners = listeners
        self._acceptors: list[Acceptor] = []

    async def start(self) -> None:
        """Answer from now on."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101  it is set up

        def protocol(_: socket.socket) -> asyncio.Protocol:
            return Guard(Protocol(server, self._metrics), self._metrics, self._limits, self._connections)

        if self._relay is not None:
            self._relay.start(self._tasks)
        self._limits.fit(capacity())
        self._acceptors = [Acceptor(each, protocol, self._tasks, self._metrics) for each in self._listeners]
        for each in self._acceptors:
            each.start()

    async def stop(self) -> None:
        """Take no more connections, and finish the answers under way."""
        for each in self._acceptors:
            each.stop()
        if self._relay is not None:
            self._relay.end()
        await self._connections.drain(DRAIN_SECONDS, asyncio.Event())
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="stopping\n" if self._scheduler.stopping else "ok\n")

    async def _status(self, _: web.Request) -> web.Response:
        of = self._scheduler
        body = {
            "node": self._serving.describe(),
            "uptime_seconds": round(monotonic() - self._started, 3),
            "running": of.running,
            "queued": max(of.queued, 0),
            "stopping": of.stopping,
            "ended": dict(of.ended),
            "refused": dict(of.refused),
            "strangers": dict(self._serving.strangers),
            "refusals": dict(self._refusals.counts),
            "errors": dict(self._serving.errors),
            "connections": self._serving.connections,
            "streams": self._serving.streams,
            "problems": [problem.text for problem in self._tasks.found()],
        }
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _measured(self, _: web.Request) -> web.Response:
        of = self._scheduler
        found: dict[str, tuple[str, Values]] = {
            "phase_node_jobs_total": ("Jobs that ended, by state.", _by("state", of.ended)),
            "phase_node_refused_total": ("Jobs that were refused, by reason.", _by("reason", of.refused)),
            "phase_node_running": ("Jobs that run.", of.running),
            "phase_node_queued": ("Jobs that wait.", max(of.queued, 0)),
            "phase_node_slots": ("Jobs that may run at a time.", of.capacity.slots),
            "phase_node_connections": ("Connections of clients by QUIC.", self._serving.connections),
            "phase_node_strangers_total": (
                "Connections that were refused, by reason.",
                _by("reason", self._serving.strangers),
            ),
            "phase_node_http_refused_total": (
                "Requests by HTTP that were refused, by status and reason.",
                _by("reason", self._refusals.counts),
            ),
            "phase_node_streams": ("Streams of clients that are open.", self._serving.streams),
            "phase_node_client_errors_total": (
                "Streams that did not keep to the protocol.",
                self._serving.errors.total(),
            ),
            "phase_node_http_connections": ("Connections by HTTP.", self._metrics.connections),
            "phase_node_task_failures_total": (
                "Failures of background tasks.",
                _by("task", self._tasks.failures),
            ),
            "phase_node_uptime_seconds": ("Seconds since start.", round(monotonic() - self._started, 3)),
        }
        if self._relay is not None:
            found |= self._relay.metrics()
        return web.Response(text=formatted(found), headers={"Content-Type": "text/plain; version=0.0.4"})


def _by(label: str, counts: Mapping[str, int]) -> dict[str, float]:
    return {f'{label}="{name}"': count for name, count in counts.items()}
