"""`phase version`."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from phase.cli import _options
from phase.cli._tell import Out
from phase.foreign import MalformedError, read_json

if TYPE_CHECKING:
    from phase.cli.facts import Version

#: Seconds that git may take to name a commit.
_PATIENCE = 5.0


class _Source(msgspec.Struct, frozen=True):
    commit_id: str


class _DirectUrl(msgspec.Struct, frozen=True):
    vcs_info: _Source | None = None


@click.command("version")
@_options.as_json
def command(as_json: bool) -> None:
    """Say which version this is, of what it is made, and on what it runs."""
    out, found = Out(as_json), facts()
    out.line(text(found))
    out.facts(found)


def text(found: "Version") -> str:
    """One line for people."""
    commit = f" (commit {found.commit})" if found.commit else ""
    engine = f"wasmtime {found.engine}" if found.engine else "no engine"
    return f"phase {found.version}{commit}, {engine}, Python {found.python}"


def facts() -> "Version":
    """What is known of this installation."""
    from phase.cli.facts import Version

    return Version(
        version=_installed("phase") or "unknown",
        commit=_commit(),
        engine=_installed("wasmtime"),
        python=platform.python_version(),
    )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str | None:
    """What pip has noted of where it was installed from (PEP 610), or git of the tree that this runs in."""
    tree = Path(__file__).parents[2]
    if (tree / ".git").exists():
        words = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() or None
    try:
        noted = metadata.distribution("phase").read_text("direct_url.json") or "{}"
        found = read_json(noted.encode(), _DirectUrl).vcs_info
    except (metadata.PackageNotFoundError, MalformedError):
        return None
    return found.commit_id[:12] if found else None
