"""Runs a provider: listens, advertises, and on a signal finishes what it has begun."""

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from phase.errors import PhaseError
from phase.provider import systemd, workers
from phase.provider.app import ADVERTISEMENT, LIMITS, METRICS, STORE, TOGETHER, make_app
from phase.provider.errors import ProviderError
from phase.provider.guard import Guard
from phase.provider.limits import MAX_HANDSHAKES, Limits
from phase.provider.protocol import Protocol
from phase.provider.together import Row

if TYPE_CHECKING:
    # A booted system has no OpenSSL, and serves without it.
    import ssl

    from phase.provider.announce import Options

#: Seconds answers under way may take after a signal to stop.
DRAIN_SECONDS = 30.0
#: Seconds between two looks at files that are signed here: whether there are new ones.
UPKEEP_SECONDS = 2.0
#: Bytes the kernel holds of a connection beyond what its reader takes now. Of its own accord it holds
#: megabytes, and a thousand slow readers use up its memory for TCP: then all others are slow too.
UNSENT_BYTES = 128 << 10
_log = logging.getLogger(__name__)


async def serve(
    repository: Path,
    *,
    bind: str,
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
    listener: socket.socket | None = None,
    tls: "ssl.SSLContext | None" = None,
    row: Row | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`.

    Args:
        repository: directory with `metadata/` and `blobs/sha256/`; only ever read.
        bind: address to listen on.
        port: port to listen on; 0 for any free one.
        channel: what `/manifest.json` means.
        arch: what `/manifest.json` means.
        mdns: advertise on the local network.
        dht: how to take part in the DHT; not at all when left out.
        identity: eight characters that name this provider there; random when left out.
        ready: called with the port once it listens.
        stopping: called when it stops listening, before it finishes what it has begun.
        stop: set it to stop.
        drain: seconds answers under way may still take then.
        upkeep: called in a thread now and then, such as to sign a local repository anew; what it
            raises is logged, and what is there is served on.
        every: seconds between two calls of it.
        listener: socket to accept from, in place of `bind` and `port`.
        tls: certificate and key to speak TLS with; plain HTTP when left out.
        row: the place of this process among others that serve the same; none where it is alone.

    Raises:
        RepositoryError: the directory is no repository.
        ProviderError: the address cannot be listened on.
    """
    app = make_app(repository, channel=channel, arch=arch, row=row)
    runner = web.AppRunner(app, shutdown_timeout=drain, handle_signals=False)
    await runner.setup()
    loop = asyncio.get_running_loop()
    inner = runner.server
    if inner is None:
        raise ProviderError("the HTTP server did not start")
    try:
        accepting = listener or workers.listen(bind, port)
    except ProviderError:
        await runner.cleanup()
        raise
    # What is accepted inherits it.
    accepting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    metrics, handshakes = app[METRICS], Limits(MAX_HANDSHAKES)

    def connection() -> asyncio.Protocol:
        guarded = Guard(Protocol(inner, metrics), metrics, app[LIMITS])
        if tls is None:
            return guarded
        from phase.provider.handshake import Handshake

        return Handshake(guarded, tls, handshakes)

    server = await loop.create_server(connection, sock=accepting, backlog=1024)
    port = accepting.getsockname()[1]
    stop = stop or asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    if row is not None:
        tasks.append(asyncio.create_task(app[TOGETHER].keep_telling()))
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not in a thread other than the main one; there `stop` is the way.
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, stop.set)
        if mdns:
            from phase.provider.advertise import advertise

            shown = advertise(
                app[STORE],
                app[ADVERTISEMENT],
                bind=bind,
                port=port,
                identity=identity or secrets.token_hex(4),
            )
            tasks.append(asyncio.create_task(shown))
        if dht is not None:
            from phase.provider.announce import announce

            node = announce(app[STORE], app[ADVERTISEMENT].dht, dht, bind=bind, port=port)
            tasks.append(asyncio.create_task(node))
        if upkeep is not None:
            tasks.append(asyncio.create_task(_keep_up(upkeep, every)))
        if ready is not None:
            ready(port)
        systemd.notify("READY=1")
        await stop.wait()
    finally:
        systemd.notify("STOPPING=1")
        if stopping is not None:
            stopping()
        # First out of the network's sight, then no new connection, then the answers under way.
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await runner.cleanup()


async def _keep_up(upkeep: Callable[[], object], every: float) -> None:
    said = ""
    while True:
        await asyncio.sleep(every)
        try:
            await asyncio.to_thread(upkeep)
            said = ""
        except PhaseError as error:
            if str(error) != said:
                _log.error("upkeep of what is served failed, and is tried again: %s", error)
            said = str(error)
