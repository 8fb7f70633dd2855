"""`phase release predict`: what a seed that hands over to a release leaves in its machine's TPM."""

import re
from pathlib import Path

import click

from phase.cli import _options, _signing
from phase.cli._options import option
from phase.cli._tell import Out
from phase.errors import PhaseError


@click.command("predict")
@_signing.directory
@click.argument("channel")
@click.argument("arch")
@option(
    "--running",
    once=True,
    required=True,
    metavar="TEXT",
    help="The seed's own kernel command line, as /proc/cmdline has it there.",
)
@option(
    "--also",
    once=True,
    multiple=True,
    metavar="WORD",
    help="A word that the seed adds itself: rootfstype=ramfs, where memory is small. Repeat for more.",
)
@option(
    "--before",
    is_flag=True,
    once=True,
    help="Of the release before it, where the manifest names one (`add --fall-back`).",
)
@option(
    "--start",
    once=True,
    default="0" * 64,
    metavar="HEX",
    standard="zero, as after a reset",
    help="The register's value before: after `phase update --now`, what the boot has left there.",
)
@_options.as_json
def predict(
    directory: Path,
    channel: str,
    arch: str,
    running: str,
    also: tuple[str, ...],
    before: bool,
    start: str,
    as_json: bool,
) -> None:
    """Say what a TPM's PCR holds (SHA-256) once a seed has handed over to the published release."""
    from phase import cmdline, measured
    from phase.cli.facts import Predicted
    from phase.release.manifest import role_name
    from phase.release.tree import Tree

    if re.fullmatch("[0-9a-fA-F]{64}", start) is None:
        raise click.UsageError("--start is 64 hex digits")
    tree = Tree.published_in(directory)
    manifest = tree.manifest(channel, arch)
    chosen = manifest.before if before else manifest
    if chosen is None or chosen.rootfs is None:
        what = "names no release before it" if chosen is None else "has no rootfs, so no seed starts it"
        raise PhaseError(f"release {manifest.release} of {manifest.channel}/{manifest.arch} {what}")
    pair = (manifest.channel, manifest.arch)
    metadata = tree.metadata([pair])[f"{manifest.version}.{role_name(*pair)}.json"]
    line = cmdline.compose_within(chosen.cmdline, running, rootfs=chosen.rootfs.sha256, also=also).line
    events = measured.events(metadata, line)
    value = measured.extended(events, bytes.fromhex(start)).hex()
    out = Out(as_json)
    out.line(f"command line: {line}")
    for event in events:
        out.line(f"event: {event.decode()}")
    out.line(f"PCR {measured.PCR}, SHA-256: {value}")
    out.facts(
        Predicted(
            release=chosen.release,
            version=chosen.version,
            cmdline=line,
            events=[event.decode() for event in events],
            pcr=measured.PCR,
            value=value,
        )
    )


COMMANDS = (predict,)
