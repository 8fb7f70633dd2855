"""`phase provider`: ask providers how they are."""

import json
from typing import Any

import click

from phase import arch as arches
from phase.cli import printable
from phase.discovery import discover
from phase.fetch import Client, FetchError, ProtocolError

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
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{addr}: {_describe(addr, found)}")
    for release in found.get("releases", ()):
        line = "  {channel}/{arch}  {release}  version {version}  expires {expires}".format(**release)
        click.echo(printable(line))


@command.command("list")
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="Seconds.")
@click.option("--addr", "urls", multiple=True, help="A provider's URL, instead of looking; repeat for more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_(channel: str, arch: str, timeout: float, urls: tuple[str, ...], as_json: bool) -> None:
    """List the providers on this network, and whether each answers."""
    found = discover(channel, arches.canonical(arch), urls=urls, mdns=not urls, timeout=timeout)
    for provider in found:
        try:
            answers, text = True, _describe(provider.url, _status(provider.url))
        except FetchError as error:
            answers, text = False, str(error)
        if as_json:
            click.echo(json.dumps({**provider._asdict(), "answers": answers, "detail": text}))
        else:
            click.echo(f"{provider.url}: {printable(text)}")


def _status(url: str) -> dict[str, Any]:
    with Client([url], timeout=10.0) as client:
        body = client.get("/status", _MAX_STATUS)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("releases", []), list):
        raise ProtocolError(url, "its status is not what a provider says", hint="Is it Phase at all?")
    return found


def _describe(url: str, found: dict[str, Any]) -> str:
    try:
        trouble = found["repository_problem"] or "ok"
        return printable(
            f"{trouble}; up {found['uptime_seconds']:.0f} s, {found['requests']} requests, "
            f"{found['bytes_sent'] / 1e6:.1f} MB sent, {len(found['releases'])} releases, "
            f"mDNS {'on' if found['mdns']['running'] else 'off'}"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(url, "its status lacks what a provider says") from error
