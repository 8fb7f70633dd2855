"""`phase node`: the booted system's node."""

import sys
from pathlib import Path

import click

from phase import node
from phase.cli import _options


@click.command("node")
@_options.option(
    "--state",
    type=_options.PLACE,
    metavar="DIRECTORY",
    default=node.STATE,
    help="Directory of this machine's state: its identity.",
)
@_options.option("--job", type=click.Choice(node.JOBS), required=True, help="Job to run at once.")
@_options.option(
    "--module",
    type=_options.PLACE,
    metavar="FILE",
    default=node.MODULE,
    help="WebAssembly module of the job.",
)
@_options.option(
    "--receipts",
    type=_options.PLACE,
    metavar="DIRECTORY",
    default=node.RECEIPTS,
    help="Directory for the job's receipt.",
)
@_options.option("--ephemeral", is_flag=True, help="Sign with a key that is never written down.")
def command(state: Path, job: str, module: Path, receipts: Path, ephemeral: bool) -> None:
    """Run this machine's node."""
    passed = node.run_job(job, state=state, module=module, receipts=receipts, ephemeral=ephemeral)
    sys.exit(0 if passed else 1)
