"""`phase version`."""

import click


@click.command("version")
def command() -> None:
    """Say which version this is."""
    from phase.provider.status import own_version

    click.echo(own_version())
