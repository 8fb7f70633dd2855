"""`phase serve`: serve releases to machines that boot."""

import asyncio
import logging
import os
import resource
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase import modes
from phase.cli import _options
from phase.cli._dht import dht_option
from phase.cli._mirror import Following, begin, mirror_options
from phase.cli._options import option
from phase.cli._relay import relay_for_option
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.provider.errors import ProviderError

#: Seconds that the end of one process may take altogether: the answers under way, and a little more.
END_SECONDS = 25.0
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    # A booted system has no OpenSSL, and serves without it.
    import ssl

    from phase.peer.relay import Relay
    from phase.provider.systemd import Inherited


@dataclass(frozen=True)
class Options:
    """What `phase serve` was told. As the options are called; `arch` is canonical."""

    artifacts: Path
    mode: str
    channel: str
    arch: str
    binds: tuple[str, ...]
    port: int
    no_mdns: bool
    no_dht: bool
    dht: tuple[tuple[str, int], ...]
    dht_address: str | None
    state: Path | None
    access_log: str | None
    tls: tuple[str, str] | None
    processes: int
    relay_for: tuple[str, ...]
    following: Following
    as_json: bool


@click.command("serve")
@option(
    "--artifacts",
    type=_options.PLACE,
    required=True,
    metavar="DIRECTORY",
    help="A repository, or files as {channel}/{arch}/kernel and so on.",
)
@_options.mode
@_options.channel
@_options.arch
@option(
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    standard="all",
    help="Address or name to listen on, a link-local one with its zone; repeat for more.",
)
@option("--port", type=click.IntRange(0, 65_535), default=8080, metavar="N", help="Port; 0 is any.")
@option("--no-mdns", is_flag=True, help="Do not use multicast DNS.")
@option("--no-dht", is_flag=True, help="Take no part in the distributed hash table.")
@dht_option
@option(
    "--dht-address",
    metavar="IPV4",
    standard="the one that others see",
    help="Address to announce.",
)
@_options.state
@option("--access-log", metavar="FILE", help="One JSON object per request; - for standard output.")
@option(
    "--tls",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False),
    metavar="CERT KEY",
    help="Speak TLS with this certificate and key (PEM). Seeds do not: serve them plain HTTP.",
)
@option("--processes", type=click.IntRange(1, 64), default=1, metavar="N", help="How many serve at once.")
@relay_for_option
@mirror_options()
@_options.as_json
def command(**given: Any) -> None:
    """Serve the releases in a directory, and advertise them.

    Files without a signature are signed with keys made on this machine: enough for a first try, and
    for machines that are given that root.
    """
    from phase import arch as arches
    from phase.provider import access, listening, systemd

    options = Options(**given)
    if options.no_dht and (options.dht or options.dht_address):
        raise click.UsageError("--no-dht leaves nothing for --dht and --dht-address to do")
    if options.relay_for and options.processes > 1:
        raise click.UsageError(
            "--relay-for needs one process, since peers meet in one: leave out --processes"
        )
    if not options.following.follow and not options.artifacts.is_dir():
        raise click.BadParameter(f"{options.artifacts} is not a directory", param_hint="--artifacts")
    mode = modes.of(options.mode)
    if not mode.serves:
        raise ProviderError(f"{mode.name} mode answers nobody: nothing is served")
    if options.dht and not mode.dht:
        note(f"--dht is not used in {mode.name} mode")
    options = replace(options, no_dht=options.no_dht or not mode.dht)
    log_to_stderr()
    options = replace(options, arch=arches.canonical(options.arch))
    repository, upkeep = _repository(options)
    if options.access_log is not None:
        try:
            access.log_to(options.access_log)
        except OSError as error:
            raise ProviderError(
                f"the access log {options.access_log} cannot be written: {error.strerror}"
            ) from error
    context = _tls(*options.tls) if options.tls else None
    relay = _relay(options.relay_for)
    handed = systemd.inherited()
    sockets = handed or systemd.Inherited(listening.listen(options.binds, options.port), None)
    _allow_many_files()
    _run(options, repository, upkeep, context, sockets, relay)


def _repository(options: Options) -> tuple[Path, Callable[[], object] | None]:
    """What is served, and what keeps it: it is signed here if no publisher has, or follows one."""
    if options.following.follow:
        dht = () if options.no_dht else options.dht
        own = options.channel, options.arch
        mode, mdns = modes.of(options.mode), not options.no_mdns
        return options.artifacts, begin(options.artifacts, options.following, own, mode, mdns=mdns, dht=dht)
    if (options.artifacts / "metadata" / "timestamp.json").exists():
        return options.artifacts, None
    from phase.cli.init import default_state
    from phase.release.local import LocalRepository

    keep = (options.state or default_state()) / "repository"
    local = LocalRepository(options.artifacts, keep, options.channel, options.arch)
    for line in local.refresh().lines:
        note(line)
    return local.directory, local.keep_up


def _relay(given: Sequence[str]) -> "Relay | None":
    if not given:
        return None
    from phase.peer.allowed import Allowed
    from phase.peer.relay import Relay

    return Relay(Allowed(given))


def _run(
    options: Options,
    repository: Path,
    upkeep: Callable[[], object] | None,
    context: "ssl.SSLContext | None",
    sockets: "Inherited",
    relay: "Relay | None",
) -> None:
    """Serve until it is ended, in one process or several."""
    from phase.provider import announce, listening, workers
    from phase.provider.server import UPKEEP_SECONDS, serve
    from phase.provider.store import Store
    from phase.provider.together import Board

    urls = listening.urls(sockets.listeners, "https" if context else "http")
    board = Board(options.processes) if options.processes > 1 else None
    identity = secrets.token_hex(4)
    # Seeds do not speak TLS: they must not be sent here.
    found = context is None

    def ready() -> None:
        _ready(repository, urls, as_json=options.as_json)

    def close() -> None:
        for listener in sockets.listeners:
            listener.close()
        if sockets.datagram:
            sockets.datagram.close()

    def work(number: int) -> None:
        first = number == 0
        dht = announce.Options(options.dht, options.dht_address or "", sockets.datagram)
        asyncio.run(
            serve(
                repository,
                bind=options.binds,
                port=options.port,
                channel=options.channel,
                arch=options.arch,
                mdns=first and found and not options.no_mdns,
                dht=dht if first and found and not options.no_dht else None,
                identity=identity,
                ready=None if board else lambda _: ready(),
                upkeep=upkeep if first else None,
                every=options.following.every if options.following.follow else UPKEEP_SECONDS,
                stopping=end_in_time,
                listeners=sockets.listeners,
                tls=context,
                row=board.row(number) if board else None,
                relay=relay,
            )
        )

    if board is not None:
        # Before there are workers: a bad repository is not a reason to start them again and again.
        Store(repository)
    workers.run(options.processes, work, places=board, ready=ready, ending=close)


def _ready(repository: Path, urls: Sequence[str], *, as_json: bool) -> None:
    """Say where it serves. That standard output is full is not a reason not to serve."""
    where = f"serving {repository} on {' and '.join(urls)}"
    out = Out(as_json)
    try:
        if as_json:
            from phase.cli.facts import Serving

            out.facts(Serving(directory=str(repository), urls=list(urls)))
        out.line(where)
    except (PhaseError, OSError) as error:
        _log.warning("%s; %s", where, error)


def log_to_stderr() -> None:
    """Write log lines that neither fail nor wait: standard error may be a full disk or a stuck pipe."""
    from phase.provider.lines import LineHandler, LineWriter

    for descriptor in range(3):
        # A closed one would be the number of the next socket that is opened.
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    handler = LineHandler(LineWriter("standard error", descriptor=2, say=lambda _: None))
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def end_in_time() -> None:
    """End this process when a thread, a name that is looked up or a library holds up its end."""

    def end() -> None:
        _log.error("this process does not end within %.0f s; it is ended", END_SECONDS)
        os._exit(1)

    timer = threading.Timer(END_SECONDS, end)
    timer.daemon = True
    timer.start()


def _tls(certificate: str, key: str) -> "ssl.SSLContext":
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ProviderError(f"{certificate} and {key} are not a certificate and its key: {error}") from error
    return context


def _allow_many_files() -> None:
    """A connection and the file it reads each take a descriptor; the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 16_384 if hard == resource.RLIM_INFINITY else min(hard, 16_384)
    if soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
