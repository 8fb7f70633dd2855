"""`phase provider`: ask providers how they are."""

import click

from phase import arch as arches
from phase.cli import _options, printable
from phase.cli._dht import dht_option
from phase.cli._tell import Out
from phase.discovery import discover
from phase.fetch import Client, FetchError, ProtocolError
from phase.fetch.errors import NoSuchFileError
from phase.foreign import MalformedError, read_json
from phase.provider.status import Status

_MAX_STATUS = 1 << 20


@click.group("provider")
def command() -> None:
    """Ask providers how they are."""


@command.command("status")
@_options.option(
    "--addr",
    "url",
    default="http://127.0.0.1:8080",
    metavar="URL",
    help="The provider.",
)
@_options.as_json
def status(url: str, as_json: bool) -> None:
    """Say what one provider offers."""
    found, out = _status(url), Out(as_json)
    out.facts(found, indent=2)
    out.line(f"{url}: {describe(found)}")
    if found.dht.running and found.dht.problem:
        out.line(f"  DHT: {found.dht.problem}")
    for problem in found.problems:
        out.line(f"  {problem.part}: {problem.text}")
    for release in found.releases:
        line = f"{release.channel}/{release.arch}  {release.release}  version {release.version}"
        out.line(f"  {line}  expires {release.expires}")


@command.command("list")
@_options.channel
@_options.arch
@_options.timeout(3.0, 0.1, 600)
@_options.option(
    "--addr", "urls", multiple=True, metavar="URL", help="A provider, instead of looking; repeat for more."
)
@dht_option
@_options.as_json_lines
def list_(
    channel: str,
    arch: str,
    timeout: float,
    urls: tuple[str, ...],
    dht: tuple[tuple[str, int], ...],
    as_json: bool,
) -> None:
    """List the providers on this network and in the DHT, and whether each answers."""
    from phase.cli.facts import ListedProvider

    out = Out(as_json)
    found = discover(channel, arches.canonical(arch), urls=urls, mdns=not urls, dht=dht, timeout=timeout)
    for provider in found:
        try:
            answers, text = True, describe(_status(provider.url))
        except FetchError as error:
            answers, text = False, str(error)
        out.facts(ListedProvider(**provider._asdict(), answers=answers, detail=text))
        out.line(f"{provider.url}: {text}")


def _status(url: str) -> Status:
    try:
        with Client([url], timeout=10.0) as client:
            return read_status(url, client.get("/status", _MAX_STATUS))
    except NoSuchFileError as error:
        raise FetchError(
            f"{url} has no /status",
            hint="A web server with an exported repository has none: only `phase serve` answers this.",
        ) from error


def read_status(url: str, body: bytes) -> Status:
    """What a provider says of itself; anybody may have said it.

    Raises:
        ProtocolError: it is nothing that a provider says.
    """
    try:
        return read_json(body, Status)
    except MalformedError as error:
        raise ProtocolError(
            url, "its status is not what a provider says", hint="Is it Phase at all?"
        ) from error


def describe(found: Status) -> str:
    """One line about a provider."""
    state = found.repository_problem or ("degraded" if found.problems else "ok")
    return printable(
        f"{state}; up {found.uptime_seconds:.0f} s, {found.requests} requests, "
        f"{found.bytes_sent / 1e6:.1f} MB sent, {len(found.releases)} releases, "
        f"mDNS {'on' if found.mdns.running else 'off'}, "
        f"DHT {f'with {found.dht.nodes} nodes' if found.dht.running else 'off'}"
    )
