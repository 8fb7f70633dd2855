"""`phase discover`: who is there?"""

import click

from phase import arch as arches
from phase.cli import _options
from phase.cli._dht import dht_option
from phase.cli._tell import Out
from phase.discovery import DiscoveryError, discover


@click.command("discover")
@_options.channel
@_options.arch
@_options.timeout(3.0, 0.1, 600)
@dht_option
@_options.option("--no-mdns", is_flag=True, help="Do not use multicast DNS.")
@_options.option("--first", is_flag=True, help="Stop at the first answer.")
@_options.as_json_lines
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
    from phase.cli.facts import FoundProvider

    out, wanted = Out(as_json), arches.canonical(arch)
    found = 0
    for provider in discover(channel, wanted, mdns=not no_mdns, dht=dht, timeout=timeout):
        found += 1
        out.facts(FoundProvider(**provider._asdict()))
        version = "-" if provider.version is None else provider.version
        out.line(f"{provider.url}  {channel}/{wanted}  version {version}  id {provider.id}")
        if first:
            break
    if not found:
        raise DiscoveryError(
            f"no provider of {channel}/{wanted} answered within {timeout:g} s",
            hint="Is `phase serve` running, and multicast let through? Elsewhere, name a node with --dht.",
        )
