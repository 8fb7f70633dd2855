"""`phase receipt`: check what a node signed."""

from pathlib import Path

import click

from phase.cli import as_json as to_json
from phase.cli import printable
from phase.errors import PhaseError

#: A receipt is a few kilobytes; arguments and environment may make it some hundred.
MAX_BYTES = 1 << 20


@click.group("receipt")
def command() -> None:
    """Look at signed receipts."""


@command.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", required=True, help="The node's public key, 64 hex digits, from a source you trust.")
@click.option("--job-id", help="The job it must be for.")
@click.option("--nonce", help="The nonce it must carry.")
@click.option("--module", help="SHA-256 of the module that must have run, hex.")
@click.option("--json", "as_json", is_flag=True, help="Print the verified receipt as JSON.")
def verify(
    file: Path, key: str, job_id: str | None, nonce: str | None, module: str | None, as_json: bool
) -> None:
    """Check that FILE is a receipt signed by KEY; print what it says."""
    from phase.jobs import receipt as receipts
    from phase.jobs.status import explain

    with file.open("rb") as opened:
        envelope = opened.read(MAX_BYTES + 1)
    if len(envelope) > MAX_BYTES:
        raise PhaseError(f"{file} is over {MAX_BYTES} bytes, the limit of a receipt")
    found = receipts.verify(envelope, key=key, job_id=job_id, nonce=nonce, module_sha256=module)
    if as_json:
        click.echo(to_json(found))
        return
    # The node has chosen all of these words.
    for name, said in (
        ("signed by", found.node),
        ("job", found.job.id),
        ("nonce", found.job.nonce or "-"),
        ("module", f"sha256:{found.module.sha256}"),
        ("stdout", f"sha256:{found.stdout.sha256} ({found.stdout.length} bytes)"),
        ("status", explain(found.status)),
        ("when", f"{found.started} for {found.wall_ms:.0f} ms"),
    ):
        click.echo(f"{name:<11}{printable(said)}")
