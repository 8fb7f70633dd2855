"""`phase receipt`: check what a node signed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _given, _options
from phase.cli._tell import Out

if TYPE_CHECKING:
    from phase.jobs.receipt import Content

#: As for every envelope. A receipt is a few kilobytes; arguments and environment may make it some hundred.
MAX_BYTES = 4 << 20


@click.group("receipt")
def command() -> None:
    """Look at signed receipts."""


@command.command("verify")
@click.argument("file", type=_options.FILE)
@_options.option(
    "--key",
    metavar="HEX",
    required=True,
    help="The node's public key, 64 hex digits, from a source you trust.",
)
@_options.option("--job-id", once=True, metavar="TEXT", help="The job's name, which the receipt must have.")
@_options.option("--nonce", once=True, metavar="TEXT", help="The requester's nonce, which it must have.")
@_options.option(
    "--module-sha256",
    once=True,
    type=_options.Sha256(),
    metavar="HEX",
    help="SHA-256 of the module that must have run, also with sha256: in front.",
)
@_options.as_json
def verify(
    file: Path, key: str, job_id: str | None, nonce: str | None, module_sha256: str | None, as_json: bool
) -> None:
    """Check that FILE is a receipt signed by KEY; print what it says."""
    from phase.jobs import receipt as receipts
    from phase.jobs.status import explain

    envelope = _given.read(file, "the receipt", MAX_BYTES)
    found = receipts.verify(envelope, key=key, job_id=job_id, nonce=nonce, module_sha256=module_sha256)
    out = Out(as_json)
    out.facts(found)
    # The node has chosen all of these words.
    for name, said in (
        ("signed by", found.node),
        ("job", found.job.id),
        ("nonce", found.job.nonce or "-"),
        ("module", f"sha256:{found.module.sha256}"),
        ("stdout", _told(found.stdout)),
        *((f"input {name}", _told(content)) for name, content in found.inputs.items()),
        *((f"output {name}", _told(content)) for name, content in found.outputs.items()),
        *((f"{'writes' if each.writable else 'reads'}", each.guest) for each in found.directories),
        ("seed", found.seed),
        ("requester", found.requester),
        ("attempt", found.attempt),
        ("status", explain(found.status)),
        ("when", f"{found.started} for {found.wall_ms:.0f} ms"),
    ):
        if said is not None:
            out.line(f"{name:<10} {said}")


def _told(content: "Content") -> str:
    return f"sha256:{content.sha256} ({content.length} bytes)"
