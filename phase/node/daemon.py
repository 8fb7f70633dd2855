"""`phase node` as a daemon: one identity, one transport, slots, and an end without loss."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from phase.identity import Identity
from phase.jobs.limits import MIB
from phase.node import IDENTITY, NodeError
from phase.node.admission import Admission
from phase.node.blobs import Blobs
from phase.node.capacity import Capacity
from phase.node.gateway import Gateway
from phase.node.journal import Journal
from phase.node.kept import Kept
from phase.node.requests import Checker
from phase.node.scheduler import Runner, Scheduler
from phase.node.serving import Serving
from phase.node.web import Web
from phase.peer.address import join_host
from phase.peer.errors import PeerError
from phase.peer.messages import Reason
from phase.peer.publish import Published
from phase.peer.records import Capability
from phase.peer.transport import Code, Connection, Transport
from phase.provider import announce, listening, systemd
from phase.provider.background import Background
from phase.provider.errors import ProviderError
from phase.provider.status import DhtTold

if TYPE_CHECKING:
    from phase.peer.iroh import IrohTransport

_log = logging.getLogger(__name__)
#: Seconds for connections to take note of the end.
CLOSE_SECONDS = 5.0
#: Ports that are tried where any will do.
_TRIES = 8


@dataclass(frozen=True)
class Options:
    """What a node is told.

    Args:
        state: directory of its identity, its journal and what it keeps.
        listen: `HOST:PORT` of UDP, and of TCP for HTTP.
        relays: URLs.
        dht: DHT nodes to begin with, hosts and ports; where there are none, the node takes no part.
        mdns: answer for the node on the local networks.
        relay_for: who may use the node as a relay; see `phase.peer.allowed`.
        admission: who may bring jobs.
        capacity: limits.
    """

    state: Path
    listen: tuple[str, ...]
    relays: tuple[str, ...] = ()
    dht: tuple[tuple[str, int], ...] = ()
    mdns: bool = True
    relay_for: tuple[str, ...] = ()
    admission: Admission = field(default_factory=Admission)
    capacity: Capacity = field(default_factory=Capacity)


class Daemon:
    """A node that takes jobs. Use it as an async context manager.

    Args:
        identity: the node's.
        directory: for journal, blobs and results; made if it does not exist.
        capacity: limits.
        admission: who may bring jobs.
        runner: what runs jobs.

    Raises:
        StateError: the directory cannot be used, or another node uses it.
    """

    def __init__(
        self,
        identity: Identity,
        directory: Path,
        *,
        capacity: Capacity,
        admission: Admission,
        runner: Runner,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.admission = admission
        self.tasks = Background(Counter())
        self.journal = Journal(directory / "journal")
        self.blobs = Blobs(directory / "blobs")
        self.scheduler = Scheduler(identity, capacity, self.journal, Kept(directory / "kept"), runner)
        self.serving = Serving(self.scheduler, self.blobs, identity.public_key, self.tasks)
        #: What the DHT knows of this node.
        self.published = DhtTold()
        if self.journal.damaged:
            _log.warning("the journal has %d damaged lines; they are passed over", self.journal.damaged)

    async def __aenter__(self) -> "Daemon":
        for number in range(self.scheduler.capacity.slots):
            self.tasks.start(f"slot {number + 1}", self.scheduler.work)
        return self

    async def finish(self) -> None:
        """Take no more jobs, let those that run end, and tell their clients."""
        await self.scheduler.stop()
        await self.serving.told(CLOSE_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.stop()
        await self.tasks.stop(CLOSE_SECONDS)
        self.scheduler.close()
        self.journal.close()

    def listen(self, transport: Transport, refused: Mapping[str, int] | None = None) -> None:
        """Serve whom a transport lets in, as long as it is open.

        Args:
            transport: open.
            refused: connections that the transport itself has refused, by reason; it counts on.
        """
        if refused is not None:
            self.serving.strangers = refused

        async def accept() -> None:
            while True:
                self._serve(await transport.accept())

        self.tasks.start("accept of clients", accept)

    def publish(self, identity: Identity, transport: Transport, dht: Sequence[tuple[str, int]]) -> None:
        """Tell the DHT what this node can do, as long as it runs.

        Args:
            identity: the node's.
            transport: where it is reached.
            dht: nodes of the DHT to begin with, hosts and ports.
        """
        published = Published(identity, self.can, transport.address)
        taking = functools.partial(
            announce.take_part,
            published.offers,
            self.published,
            announce.Options(dht),
            hosts=["0.0.0.0"],  # noqa: S104  # whichever way leads to them
            port=0,
        )
        self.tasks.start("the DHT node", taking)

    def advertise(self, key: str, listen: Sequence[str]) -> None:
        """Answer for this node on the local networks, as long as it runs.

        Args:
            key: the node's.
            listen: `HOST:PORT` of UDP, numeric.
        """
        from phase.peer import nearby

        places = [split_listen(each) for each in listen]
        # One port: an instance of the service has one, on every address.
        port = places[0][1]
        hosts = [host for host, other in places if other == port]
        telling = functools.partial(nearby.advertise, self.can, key=key, hosts=hosts, port=port)
        self.tasks.start("multicast DNS", telling)

    def can(self) -> Capability:
        """What this node can do now, without its addresses."""
        said = self.serving.describe()
        return Capability(
            arch=said.arch,
            runtimes=said.runtimes,
            hosts=(),
            processors=said.processors,
            memory=said.memory_bytes // MIB,
            slots=said.free,
        )

    @contextlib.asynccontextmanager
    async def web(
        self, listeners: Sequence[socket.socket], relay_for: Sequence[str] = ()
    ) -> AsyncIterator[Web]:
        """Answer HTTP.

        Args:
            listeners: sockets that listen; closed at the end.
            relay_for: who may use the node as a relay.

        Raises:
            PeerError: that is neither keys nor a file of keys.
        """
        relay = None
        if relay_for:
            from phase.peer.allowed import Allowed
            from phase.peer.relay import Relay

            relay = Relay(Allowed(relay_for))
        checker = Checker(self.serving.node, self.admission)
        gateway = Gateway(self.scheduler, self.serving, self.blobs, checker)
        web = Web(gateway, self.scheduler, self.serving, self.tasks, listeners, relay)
        await web.start()
        try:
            yield web
        finally:
            await web.stop()

    def _serve(self, connection: Connection) -> None:
        self.tasks.once("connection of a client", self._admitted(connection))

    def refusal(self, key: str) -> str:
        """Why a client may not connect, as it is told when its connection is closed; empty if it may.

        Args:
            key: which it has proved.
        """
        why = self.admission.refusal(key)
        return f"{Reason.NOT_AUTHORISED.value}: {why}" if why else ""

    async def _admitted(self, connection: Connection) -> None:
        why = self.refusal(connection.peer)
        if why:
            await connection.close(Code.REFUSED, why)
            return
        _log.info("client %s is here by %s", connection.peer, connection.path())
        await self.serving.serve(connection)


def _both(listen: Sequence[str]) -> tuple[list[socket.socket], tuple[str, ...]]:
    """Listen by TCP, and the same addresses for UDP: port 0 is one free port for both.

    Raises:
        PhaseError: an address cannot be listened on.
    """
    hosts: dict[int, list[str]] = {}
    for host, port in map(split_listen, listen):
        hosts.setdefault(port, []).append(host)
    found: list[socket.socket] = []
    places: list[str] = []
    # Those of a port together: `::` is all of IPv4, too, and that can be listened on once.
    for port, those in hosts.items():
        number = found[0].getsockname()[1] if found and not port else port
        try:
            found += listening.listen(those, number)
        except ProviderError as error:
            words = error.hint.replace("provider", "node").replace("--port", "--listen")
            raise NodeError(error.what, hint=words.replace("--bind", "--listen")) from error
        places += [join_host(host, found[-1].getsockname()[1]) for host in those]
    return found, tuple(places)


async def _listening(
    identity: Identity, options: Options, daemon: Daemon
) -> tuple[list[socket.socket], tuple[str, ...], "IrohTransport"]:
    """Listen by TCP and UDP. A free port of one may be taken of the other; then there are others.

    Raises:
        PhaseError: an address cannot be listened on.
    """
    from phase.peer.iroh import IrohTransport
    from phase.peer.iroh import Options as Peering

    tries = _TRIES if any(split_listen(each)[1] == 0 for each in options.listen) else 1
    while True:
        listeners, listen = _both(options.listen)
        try:
            peering = Peering(listen=listen, relays=options.relays, admit=daemon.refusal)
            return listeners, listen, await IrohTransport.start(identity, peering)
        except PeerError:
            for each in listeners:
                each.close()
            tries -= 1
            if not tries:
                raise


def split_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT`; the port may be 0.

    Raises:
        NodeError: it is not that.
    """
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port[:6]) < 65_536):
        raise NodeError(f"{text[:80]!r} is not HOST:PORT", hint="For example 0.0.0.0:8470 or [::]:8470.")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def run(options: Options, *, ready: Callable[[str], None], stopping: Callable[[], None]) -> None:
    """Be a node until a signal ends it.

    Args:
        options: see there.
        ready: called once it serves, with its address.
        stopping: called when it begins to end.

    Raises:
        PhaseError: it cannot begin.
    """
    from phase.node.workers import Workers

    identity = Identity.load_or_create(options.state / IDENTITY)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    # Processes before threads: the workers' parent must not inherit the transport.
    with Workers(options.capacity.slots, options.state / "node/compiled") as workers:
        daemon = Daemon(
            identity,
            options.state / "node",
            capacity=options.capacity,
            admission=options.admission,
            runner=workers,
        )
        loop.set_exception_handler(daemon.tasks.loop_failed)
        listeners, listen, transport = await _listening(identity, options, daemon)
        try:
            async with daemon, daemon.web(listeners, options.relay_for):
                daemon.listen(transport, transport.refused)
                if options.dht:
                    daemon.publish(identity, transport, options.dht)
                if options.mdns:
                    daemon.advertise(identity.public_key, listen)
                ready(str(transport.address()))
                systemd.notify("READY=1")
                await ended.wait()
                stopping()
                systemd.notify("STOPPING=1")
                # While it still answers: clients hear of their jobs' ends, and fetch what came of them.
                await daemon.finish()
        finally:
            with contextlib.suppress(PeerError):
                await transport.close()
