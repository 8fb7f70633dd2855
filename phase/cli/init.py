"""`phase init`: give this machine its identity."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _options
from phase.cli._tell import Out
from phase.errors import PhaseError
from phase.node import IDENTITY, STATE

if TYPE_CHECKING:
    from phase.identity import Identity

_HINT = "Set PHASE_STATE to a directory that you can write to, or give --state."


def default_state() -> Path:
    """Where this user's node keeps its identity: `PHASE_STATE`, else by who asks.

    Raises:
        PhaseError: nothing says where this user has a directory.
    """
    if given := os.environ.get("PHASE_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return STATE
    # The XDG specification has relative paths ignored.
    if (given := os.environ.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(given) / "phase"
    try:
        return Path.home() / ".local/state/phase"
    except RuntimeError as error:
        raise PhaseError(
            f"no directory for the identity: no HOME, and user {os.geteuid()} has no entry in passwd",
            hint=_HINT,
        ) from error


def identity_in(state: Path | None) -> "Identity":
    """Read the identity of a state directory, or make it.

    Args:
        state: the directory; the user's own when None.

    Raises:
        PhaseError: it cannot be made or read.
    """
    from phase.identity import Identity

    directory = state or default_state()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Said before the identity is looked for, because the remedy is another directory.
        if not (directory / IDENTITY).exists() and not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(0, "no permission to write")
    except OSError as error:
        raise PhaseError(
            f"no identity in {directory}: {error.filename or directory}: {error.strerror}",
            hint=_HINT,
        ) from error
    return Identity.load_or_create(directory / IDENTITY)


@click.command("init")
@_options.state
@_options.as_json
def command(state: Path | None, as_json: bool) -> None:
    """Create this node's identity, or show the one it has."""
    from phase.cli.facts import Node

    out, directory = Out(as_json), state or default_state()
    made = not (directory / IDENTITY).exists()
    found = Node(node=identity_in(directory).public_key, identity=str(directory / IDENTITY))
    out.facts(found)
    out.line(f"node {found.node}")
    out.line(f"identity {found.identity} ({'made now' if made else 'made before, and kept'})")
