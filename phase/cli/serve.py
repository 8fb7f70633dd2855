"""`phase serve`: serve releases to machines that boot."""

import asyncio
import logging
from pathlib import Path

import click


@click.command("serve")
@click.option(
    "--artifacts",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="A repository, or files as {channel}/{arch}/kernel and so on.",
)
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--bind", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0: any.")
@click.option("--no-mdns", is_flag=True, help="Do not advertise on the network.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="Where to keep the local repository and its keys."
)
def command(
    artifacts: Path, channel: str, arch: str, bind: str, port: int, no_mdns: bool, state: Path | None
) -> None:
    """Serve the releases in a directory, and advertise them.

    Files that nobody signed are signed with keys made on this machine: enough for a first try, and
    for machines that are given that root.
    """
    from phase import arch as arches
    from phase.provider.server import serve

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    wanted = arches.canonical(arch)
    repository = artifacts
    upkeep = None
    if not (artifacts / "metadata" / "timestamp.json").exists():
        from phase.cli.init import default_state
        from phase.release.local import LocalRepository

        keep = state or default_state() / "repository"
        local = LocalRepository(artifacts, keep, channel, wanted)
        upkeep = local.refresh
        for line in upkeep().lines:
            click.echo(line, err=True)
        repository = local.directory

    def ready(actual: int) -> None:
        click.echo(f"serving {repository} on http://{f'[{bind}]' if ':' in bind else bind}:{actual}")

    serving = serve(
        repository, bind=bind, port=port, channel=channel, mdns=not no_mdns, ready=ready, upkeep=upkeep
    )
    asyncio.run(serving)
