"""`phase node`: the booted system's node."""

import sys
from pathlib import Path

import click

from phase import node


@click.command("node")
@click.option("--state", type=click.Path(path_type=Path), default=node.STATE, show_default=True)
@click.option("--job", type=click.Choice(node.JOBS), required=True, help="Job to run at once.")
@click.option("--module", type=click.Path(path_type=Path), default=node.MODULE, show_default=True)
@click.option("--receipts", type=click.Path(path_type=Path), default=node.RECEIPTS, show_default=True)
@click.option("--ephemeral", is_flag=True, help="Use a key that is never written down.")
def command(state: Path, job: str, module: Path, receipts: Path, ephemeral: bool) -> None:
    """Run this machine's node."""
    passed = node.run_job(job, state=state, module=module, receipts=receipts, ephemeral=ephemeral)
    sys.exit(0 if passed else 1)
