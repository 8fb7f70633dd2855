"""`phase provider`: ask providers how they are."""

import json

import click

from phase import arch as arches
from phase.cli import as_json as to_json
from phase.cli import printable
from phase.cli._dht import dht_option
from phase.discovery import discover
from phase.fetch import Client, FetchError, ProtocolError
from phase.foreign import MalformedError, read_json
from phase.provider.status import Status

_MAX_STATUS = 1 << 20


@click.group("provider")
def command() -> None:
    """Ask providers how they are."""


@command.command("status")
@click.option("--addr", default="http://127.0.0.1:8080", show_default=True, help="The provider's URL.")
@click.option("--json", "as_json", is_flag=True, help="Print what it says as JSON.")
def status(addr: str, as_json: bool) -> None:
    """Say what one provider offers."""
    found = _status(addr)
    if as_json:
        click.echo(to_json(found, indent=2))
        return
    click.echo(f"{addr}: {describe(found)}")
    if found.dht.running and found.dht.problem:
        click.echo(f"  DHT: {printable(found.dht.problem)}")
    for problem in found.problems:
        click.echo(f"  {printable(problem.part)}: {printable(problem.text)}")
    for release in found.releases:
        line = f"{release.channel}/{release.arch}  {release.release}  version {release.version}"
        click.echo(f"  {printable(line)}  expires {printable(release.expires)}")


@command.command("list")
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="Seconds.")
@click.option("--addr", "urls", multiple=True, help="A provider's URL, instead of looking; repeat for more.")
@dht_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_(
    channel: str,
    arch: str,
    timeout: float,
    urls: tuple[str, ...],
    dht: tuple[tuple[str, int], ...],
    as_json: bool,
) -> None:
    """List the providers on this network and in the DHT, and whether each answers."""
    found = discover(channel, arches.canonical(arch), urls=urls, mdns=not urls, dht=dht, timeout=timeout)
    for provider in found:
        try:
            answers, text = True, describe(_status(provider.url))
        except FetchError as error:
            answers, text = False, str(error)
        if as_json:
            click.echo(json.dumps({**provider._asdict(), "answers": answers, "detail": text}))
        else:
            click.echo(printable(f"{provider.url}: {text}"))


def _status(url: str) -> Status:
    with Client([url], timeout=10.0) as client:
        return read_status(url, client.get("/status", _MAX_STATUS))


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
    """One line about a provider, whoever it is."""
    state = found.repository_problem or ("degraded" if found.problems else "ok")
    return printable(
        f"{state}; up {found.uptime_seconds:.0f} s, {found.requests} requests, "
        f"{found.bytes_sent / 1e6:.1f} MB sent, {len(found.releases)} releases, "
        f"mDNS {'on' if found.mdns.running else 'off'}, "
        f"DHT {f'with {found.dht.nodes} nodes' if found.dht.running else 'off'}"
    )
