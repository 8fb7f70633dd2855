"""`phase init`: give this machine its identity."""

import json
import os
import sys
from pathlib import Path

import click

from phase.errors import PhaseError
from phase.node import IDENTITY, STATE


def default_state() -> Path:
    """Where this user's node keeps its identity: `PHASE_STATE`, else by who asks."""
    if given := os.environ.get("PHASE_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return STATE
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(home) / "phase"


@click.command("init")
@click.option("--state", type=click.Path(path_type=Path), help="Directory for the identity.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(state: Path | None, as_json: bool) -> None:
    """Create this node's identity, or show the one it has."""
    from phase.identity import Identity

    directory = state or default_state()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity = Identity.load_or_create(directory / IDENTITY)
    except (PhaseError, OSError) as error:
        click.echo(f"phase init: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"node": identity.public_key, "identity": str(directory / IDENTITY)}))
    else:
        click.echo(f"node {identity.public_key}\nidentity {directory / IDENTITY}")
