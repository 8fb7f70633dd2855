"""`phase verify`: is what lies here still what was signed?"""

import json
from pathlib import Path

import click

from phase import arch as arches
from phase.cli import _release, printable


@click.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Trusted root metadata.")
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(directory: Path, root: Path, channel: str, arch: str, as_json: bool) -> None:
    """Verify a fetched release in DIRECTORY: signatures, expiry, versions, every byte."""
    from phase.release import check
    from phase.trust import floor

    trusted = _release.read_root(root)
    known = floor.load_all(directory, floor.publisher(trusted))
    found = check.verify(
        directory,
        trusted,
        channel=channel,
        arch=arches.canonical(arch),
        now=_release.now(known.own.time),
        floor=known.own,
        others=known.others,
    )
    manifest = found.manifest
    if as_json:
        facts = {"channel": channel, "arch": manifest.arch, "version": manifest.version}
        facts |= {"release": manifest.release, "artifacts": sorted(manifest.artifacts)}
        click.echo(json.dumps(facts))
    else:
        name = f"{channel}/{manifest.arch} {manifest.release} (version {manifest.version})"
        click.echo(printable(f"{name} is as it was signed"))
