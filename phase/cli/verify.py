"""`phase verify`: is what lies here still what was signed?"""

from pathlib import Path

import click

from phase import arch as arches
from phase.cli import _options, _release
from phase.cli._tell import Out


@click.command("verify")
@click.argument("directory", type=_options.DIRECTORY)
@_release.root_option(required=True)
@_options.channel
@_options.arch
@_options.as_json
def command(directory: Path, root_file: Path, channel: str, arch: str, as_json: bool) -> None:
    """Verify a fetched release in DIRECTORY: signatures, expiry, versions, every byte."""
    from phase.cli.facts import Verified
    from phase.release import check
    from phase.trust import floor

    trusted = _release.read_root(root_file)
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
    manifest, out = found.manifest, Out(as_json)
    out.facts(
        Verified(
            channel=channel,
            arch=manifest.arch,
            version=manifest.version,
            release=manifest.release,
            artifacts=sorted(manifest.artifacts),
        )
    )
    out.line(
        f"{channel}/{manifest.arch} {manifest.release} (version {manifest.version}) is as it was signed"
    )
