"""Runs a provider: listens, advertises, and on a signal finishes the answers under way."""

import asyncio
import contextlib
import functools
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from phase.provider import access, lines, listening, systemd, workers
from phase.provider.accept import Acceptor, capacity
from phase.provider.app import ADVERTISEMENT, HEALTH, LIMITS, METRICS, STORE, TOGETHER, make_app
from phase.provider.background import Background, in_thread
from phase.provider.check import LOOK_SECONDS, READ_SECONDS, BlobCheck
from phase.provider.direct import Direct
from phase.provider.errors import ProviderError
from phase.provider.guard import Connections, Guard
from phase.provider.limits import MAX_HANDSHAKES, Limits
from phase.provider.opened import Opened
from phase.provider.plain import Plain
from phase.provider.protocol import Protocol
from phase.provider.together import TELL_SECONDS, Row

if TYPE_CHECKING:
    # A booted system has no OpenSSL, and serves without it.
    import ssl

    from phase.peer.relay import Relay
    from phase.provider.announce import Options

#: Seconds that answers under way may take after a signal to stop.
DRAIN_SECONDS = 20.0
#: Seconds that the tasks may take to end in that time, such as for a goodbye to the network.
TASKS_SECONDS = 5.0
#: A second signal to stop means "at once" if it comes this many seconds after the first: service managers
#: and `timeout` may send the first one twice.
AGAIN_SECONDS = 0.5
#: Seconds between two calls of the upkeep, which looks for new files to sign.
UPKEEP_SECONDS = 2.0
#: Bytes that the kernel holds of a connection beyond those that its reader takes now. By default it holds
#: megabytes, so a thousand slow readers use up its memory for TCP, and all other connections get slow too.
UNSENT_BYTES = 128 << 10
#: Bytes of requests that the kernel holds of a connection, and so the most that one read brings. By default
#: it is megabytes, and what a stranger sends stays in memory until Python collects cyclic garbage, since
#: aiohttp's error for it refers to itself.
RECEIVED_BYTES = 16 << 10
#: The same where peers send datagrams through here: it bounds what one of them sends in a round trip.
RELAYED_BYTES = 256 << 10
_log = logging.getLogger(__name__)


async def serve(
    repository: Path,
    *,
    bind: str | Sequence[str],
    port: int,
    channel: str = "stable",
    arch: str | None = None,
    mdns: bool = True,
    dht: "Options | None" = None,
    identity: str = "",
    ready: Callable[[int], None] | None = None,
    stopping: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
    drain: float = DRAIN_SECONDS,
    upkeep: Callable[[], object] | None = None,
    every: float = UPKEEP_SECONDS,
    listeners: Sequence[socket.socket] = (),
    tls: "ssl.SSLContext | None" = None,
    row: Row | None = None,
    relay: "Relay | None" = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`.

    Args:
        repository: directory with `metadata/` and `blobs/sha256/`; only ever read.
        bind: address to listen on, or several; see `listening.listen`.
        port: port to listen on; 0 for any free one.
        channel: of the release at `/manifest.json`.
        arch: of the release at `/manifest.json`; the only architecture of the channel when left out.
        mdns: advertise on the local network.
        dht: how to take part in the DHT; when left out, this provider does not.
        identity: eight characters that name this provider in multicast DNS; random when left out.
        ready: called with the port once it listens.
        stopping: called when it stops listening, before it finishes the answers under way.
        stop: set it to stop.
        drain: seconds that answers under way may still take then.
        upkeep: called in a thread now and then, such as to sign a local repository anew. Its exceptions
            are logged, and serving goes on.
        every: seconds between two calls of it.
        listeners: sockets to accept from, in place of `bind` and `port`.
        tls: certificate and key to speak TLS with; plain HTTP when left out.
        row: the place of this process among others that serve the same; None if it is alone.
        relay: of peers, on the same port; only where this process is alone, since peers meet in one.

    Raises:
        RepositoryError: the directory is not a repository.
        ProviderError: the address cannot be listened on.
    """
    app = make_app(repository, channel=channel, arch=arch, row=row, relay=relay)
    runner = web.AppRunner(app, shutdown_timeout=1.0, handle_signals=False)
    await runner.setup()
    try:
        binds = [bind] if isinstance(bind, str) else bind
        accepting = list(listeners) or listening.listen(binds, port)
    except ProviderError:
        await runner.cleanup()
        raise
    port, hosts = accepting[0].getsockname()[1], listening.hosts(accepting)
    running = _Running(app, runner, accepting, tls, relay)
    background, ending = running.background, _Ending(stop or asyncio.Event())
    running.begin()
    try:
        ending.listen(asyncio.get_running_loop())
        if mdns:
            _advertise(app, background, hosts, port, identity or secrets.token_hex(4))
        if dht is not None:
            _announce(app, background, dht, hosts, port)
        _look_after(app, background, row)
        if upkeep is not None:
            background.repeat("upkeep", functools.partial(in_thread, upkeep), every)
        if ready is not None:
            ready(port)
        if row is None:
            systemd.notify("READY=1")
        await ending.stop.wait()
    finally:
        if row is None:
            systemd.notify("STOPPING=1")
        if stopping is not None:
            stopping()
        await running.end(drain, ending.at_once)


class _Running:
    """The parts of a provider that accept and answer, from its first connection to its last.

    Args:
        app: what answers.
        runner: aiohttp's, after its setup.
        listeners: sockets to accept from; closed at the end.
        tls: certificate and key; plain HTTP when left out.
        relay: of peers, in the same application.
    """

    def __init__(
        self,
        app: web.Application,
        runner: web.AppRunner,
        listeners: Sequence[socket.socket],
        tls: "ssl.SSLContext | None",
        relay: "Relay | None",
    ) -> None:
        self._app = app
        self._runner = runner
        self._relay = relay
        self._connections = Connections()
        self.background = Background(app[METRICS].failures)
        if runner.server is None:
            raise ProviderError("the HTTP server did not start")
        self._opened = Opened(app[STORE].directory)
        plain = Plain(app[STORE], self._opened)
        protocols = _protocols(app, runner.server, plain, tls, self.background, self._connections)
        self._acceptors = [Acceptor(each, protocols, self.background, app[METRICS]) for each in listeners]
        for each in listeners:
            # An accepted connection inherits them.
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            received = RECEIVED_BYTES if relay is None else RELAYED_BYTES
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
        self._loop = asyncio.get_running_loop()
        self._handler_before = self._loop.get_exception_handler()

    def begin(self) -> None:
        """Accept connections from now on."""
        self._loop.set_exception_handler(self.background.loop_failed)
        self._app[LIMITS].fit(capacity())
        self._app[HEALTH].add(
            self.background.found, lines.problems, *(each.problems for each in self._acceptors)
        )
        if self._relay is not None:
            self._relay.start(self.background)
        for acceptor in self._acceptors:
            acceptor.start()

    async def end(self, drain: float, at_once: asyncio.Event) -> None:
        """Finish what has begun, within a time.

        Args:
            drain: seconds that answers under way may still take.
            at_once: cuts them off before.
        """
        # Advertisements are taken back, connections are refused and answers finish, all at the same time.
        for acceptor in self._acceptors:
            acceptor.stop()
        if self._relay is not None:
            self._relay.end()
        cut, _ = await asyncio.gather(
            self._connections.drain(drain, at_once), self.background.stop(TASKS_SECONDS)
        )
        if cut:
            _log.warning("%d answers were not finished", cut)
        self._opened.close()
        await self._runner.cleanup()
        told = self._app[ADVERTISEMENT]
        told.tried("stopped")
        told.dht.tried("stopped")
        self._loop.set_exception_handler(self._handler_before)


class _Ending:
    """The signals that end a provider."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        #: Set when the answers under way are to be cut off.
        self.at_once = asyncio.Event()
        self._first = 0.0

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle the signals. Only the main thread can; elsewhere, `stop` alone ends the provider."""
        numbers = {signal.SIGTERM: self._end, signal.SIGQUIT: self._end_now}
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            numbers[signal.SIGINT] = self._end
        if not workers.on_terminal():
            numbers[signal.SIGHUP] = access.reopen
        for number, call in numbers.items():
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, call)

    def _end(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self.stop.is_set():
            self._first = now
            self.stop.set()
        elif now - self._first >= AGAIN_SECONDS:
            self.at_once.set()

    def _end_now(self) -> None:
        self.stop.set()
        self.at_once.set()


def _protocols(
    app: web.Application,
    inner: web.Server,
    plain: Plain,
    tls: "ssl.SSLContext | None",
    background: Background,
    connections: Connections,
) -> Callable[[socket.socket], asyncio.Protocol]:
    """A function that makes the protocol of each connection."""
    metrics, handshakes = app[METRICS], Limits(MAX_HANDSHAKES)

    def aiohttp() -> Protocol:
        return Protocol(inner, metrics)

    def protocol(connection: socket.socket) -> asyncio.Protocol:
        if tls is None:
            return Guard(Direct(plain, connection, metrics, aiohttp), metrics, app[LIMITS], connections)
        guarded = Guard(aiohttp(), metrics, app[LIMITS], connections)
        from phase.provider.handshake import Handshake

        return Handshake(guarded, tls, handshakes, background)

    return protocol


def _look_after(app: web.Application, background: Background, row: Row | None) -> None:
    """Report to the other processes; in the first of them, check the blobs too."""
    if row is not None:
        background.repeat("telling the other processes", app[TOGETHER].tell_all, TELL_SECONDS)
    if row is None or row.number == 0:
        check = BlobCheck(app[STORE], app[METRICS])
        app[HEALTH].add(check.problems)
        background.repeat("looking for the blobs", check.look, LOOK_SECONDS)
        background.repeat("reading the blobs", check.read_some, READ_SECONDS)


def _advertise(
    app: web.Application, background: Background, hosts: Sequence[str], port: int, identity: str
) -> None:
    from phase.provider.advertise import advertise

    told = app[ADVERTISEMENT]
    told.begin()
    work = functools.partial(advertise, app[STORE], told, hosts=hosts, port=port, identity=identity)
    background.start("multicast DNS", work)


def _announce(
    app: web.Application, background: Background, dht: "Options", hosts: Sequence[str], port: int
) -> None:
    from phase.provider.announce import announce

    told = app[ADVERTISEMENT].dht
    told.begin()
    background.start(
        "the DHT node", functools.partial(announce, app[STORE], told, dht, hosts=hosts, port=port)
    )
