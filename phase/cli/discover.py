"""`phase discover`: who is there?"""

import json
import sys

import click

from phase import arch as arches
from phase.cli import printable
from phase.cli._dht import dht_option
from phase.discovery import DiscoveryError, discover


@click.command("discover")
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=3.0, show_default=True, help="Seconds.")
@dht_option
@click.option("--no-mdns", is_flag=True, help="Do not ask the local network.")
@click.option("--first", is_flag=True, help="Stop at the first answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def command(
    channel: str,
    arch: str,
    timeout: float,
    dht: tuple[tuple[str, int], ...],
    no_mdns: bool,
    first: bool,
    as_json: bool,
) -> None:
    """Look for providers on this network and in the DHT. What they say is unverified."""
    wanted = arches.canonical(arch)
    found = 0
    for provider in discover(channel, wanted, mdns=not no_mdns, dht=dht, timeout=timeout):
        found += 1
        if as_json:
            click.echo(json.dumps(provider._asdict()))
        else:
            version = "-" if provider.version is None else provider.version
            line = f"{provider.url}  {channel}/{wanted}  version {version}  id {provider.id}"
            click.echo(printable(line))
        sys.stdout.flush()
        if first:
            break
    if not found:
        raise DiscoveryError(
            f"no provider of {channel}/{wanted} answered within {timeout:g} s",
            hint="Is `phase serve` running, and multicast let through? Elsewhere, name a node with --dht.",
        )
