"""`phase serve`: serve releases to machines that boot."""

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli._dht import dht_option
from phase.provider.errors import ProviderError

#: Seconds that the end of one process may take altogether: the answers under way, and a little more.
END_SECONDS = 25.0
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    # A booted system has no OpenSSL, and serves without it.
    import ssl


@click.command("serve")
@click.option(
    "--artifacts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A repository, or files as {channel}/{arch}/kernel and so on.",
)
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option(
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    help="Address or name to listen on, a link-local one with its zone; repeat for more.  [default: all]",
)
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any.")
@click.option("--no-mdns", is_flag=True, help="Do not advertise on the network.")
@click.option("--no-dht", is_flag=True, help="Take no part in the distributed hash table.")
@dht_option
@click.option("--dht-address", metavar="IPV4", help="Announce this address, not the one that others see.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="Where to keep the local repository and its keys."
)
@click.option("--access-log", metavar="FILE", help="One JSON object per request; - for standard output.")
@click.option(
    "--tls",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False),
    metavar="CERT KEY",
    help="Speak TLS with this certificate and key (PEM). Seeds do not: serve them plain HTTP.",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="How many serve at once."
)
def command(
    artifacts: Path,
    channel: str,
    arch: str,
    binds: tuple[str, ...],
    port: int,
    no_mdns: bool,
    no_dht: bool,
    dht: tuple[tuple[str, int], ...],
    dht_address: str | None,
    state: Path | None,
    access_log: str | None,
    tls: tuple[str, str] | None,
    processes: int,
) -> None:
    """Serve the releases in a directory, and advertise them.

    Files that nobody signed are signed with keys made on this machine: enough for a first try, and
    for machines that are given that root.
    """
    from phase import arch as arches
    from phase.provider import access, announce, listening, systemd, workers
    from phase.provider.server import serve
    from phase.provider.store import Store
    from phase.provider.together import Board

    if no_dht and (dht or dht_address):
        raise click.UsageError("--no-dht leaves nothing for --dht and --dht-address to do")
    _log_to_stderr()
    wanted = arches.canonical(arch)
    repository = artifacts
    upkeep = None
    if not (artifacts / "metadata" / "timestamp.json").exists():
        from phase.cli.init import default_state
        from phase.release.local import LocalRepository

        keep = state or default_state() / "repository"
        local = LocalRepository(artifacts, keep, channel, wanted)
        upkeep = local.keep_up
        for line in local.refresh().lines:
            _say(line)
        repository = local.directory

    if access_log is not None:
        try:
            access.log_to(access_log)
        except OSError as error:
            raise ProviderError(
                f"the access log {access_log} cannot be written: {error.strerror}"
            ) from error
    context = _tls(*tls) if tls else None
    handed = systemd.inherited()
    listeners = handed.listeners if handed else listening.listen(binds, port)
    _allow_many_files()

    where_to = " and ".join(listening.urls(listeners, "https" if context else "http"))

    def ready() -> None:
        where = f"serving {repository} on {where_to}"
        try:
            click.echo(where)
        except OSError as error:
            _log.warning("%s; standard output cannot be written: %s", where, error.strerror)

    def close() -> None:
        for listener in listeners:
            listener.close()
        if handed and handed.datagram:
            handed.datagram.close()

    board = Board(processes) if processes > 1 else None
    identity = secrets.token_hex(4)

    def work(number: int) -> None:
        first = number == 0
        asyncio.run(
            serve(
                repository,
                bind=binds,
                port=port,
                channel=channel,
                arch=wanted,
                # Seeds do not speak TLS: they must not be sent here.
                mdns=first and not no_mdns and context is None,
                dht=announce.Options(dht, dht_address or "", handed.datagram if handed else None)
                if first and not no_dht and context is None
                else None,
                identity=identity,
                ready=None if board else lambda _: ready(),
                upkeep=upkeep if first else None,
                stopping=_end_in_time,
                listeners=listeners,
                tls=context,
                row=board.row(number) if board else None,
            )
        )

    if board is not None:
        # Before there are workers: a bad repository is not a reason to start them again and again.
        Store(repository)
    workers.run(processes, work, places=board, ready=ready, ending=close)


def _say(line: str) -> None:
    """Tell who started this; a full disk there is not a reason not to serve."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _log_to_stderr() -> None:
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


def _end_in_time() -> None:
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
