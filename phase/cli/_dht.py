"""The option that names DHT nodes, alike in every command that has it."""

import click

from phase.cli import _options
from phase.discovery.records import MAX_PEERS, DiscoveryError, peer


def _peers(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[tuple[str, int], ...]:
    if len(texts) > MAX_PEERS:
        raise click.BadParameter(f"{len(texts)} DHT nodes are named; the limit is {MAX_PEERS}")
    try:
        return tuple(peer(text) for text in texts)
    except DiscoveryError as error:
        raise click.BadParameter(str(error)) from error


dht_option = _options.option(
    "--dht",
    multiple=True,
    metavar="HOST:PORT",
    callback=_peers,
    help="A DHT node to begin with; repeat for more.",
)
