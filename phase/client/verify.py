"""Checks that a receipt proves the result of the job that was asked for, all of it."""

import hashlib
from collections.abc import Mapping

from phase.client.errors import UntrueError
from phase.client.task import Asked
from phase.errors import PhaseError
from phase.jobs import receipt as receipts
from phase.jobs.receipt import Content, Receipt


def check(
    envelope: bytes,
    *,
    node: str,
    job: str,
    stdout: Content,
    stderr: Content,
    files: Mapping[str, bytes | bytearray],
    asked: Asked | None,
    stdin: bytes | bytearray | None = None,
) -> Receipt:
    """Verify a receipt against everything that this side knows.

    Args:
        envelope: as the node sent it.
        node: the node's pinned key.
        job: the job's id.
        stdout: the output that arrived.
        stderr: the same.
        files: that arrived.
        asked: what was asked for; None where this side does not know it any more.
        stdin: the input that was sent, of which the module need not have read all; None if it is not known.

    Raises:
        UntrueError: it proves something else, or nothing.
    """
    try:
        receipt = receipts.verify(envelope, key=node, job_id=job)
    except PhaseError as error:
        raise UntrueError(f"the receipt of job {job} does not hold: {error.what}") from error
    pairs: list[tuple[str, object, object]] = [
        ("stdout", stdout, receipt.stdout),
        ("stderr", stderr, receipt.stderr),
        ("output files", {name: counted(data) for name, data in files.items()}, receipt.outputs),
    ]
    if asked is not None:
        pairs += [
            ("nonce", asked.nonce, receipt.job.nonce),
            ("module", asked.module, receipt.module),
            ("arguments", asked.args, receipt.args),
            ("environment", asked.env, receipt.env),
            ("limits", asked.limits, receipt.limits),
            ("requester", asked.requester, receipt.requester),
            ("seed", asked.seed, receipt.seed),
            ("attempt", asked.attempt, receipt.attempt),
            ("directories", (), receipt.directories),
            ("input files", asked.inputs, receipt.inputs),
            ("output files", [], [name for name in receipt.outputs if name not in asked.outputs]),
        ]
    if asked is not None and asked.stdin is not None:
        pairs.append(("stdin", asked.stdin, receipt.stdin))
    elif stdin is not None:
        read = stdin[: receipt.stdin.length]
        pairs.append(("stdin", counted(read), receipt.stdin))
    for what, expected, found in pairs:
        if expected != found:
            raise UntrueError(
                f"the receipt of job {job} is of another {what}: expected {ascii(expected)[:200]}, "
                f"found {ascii(found)[:200]}"
            )
    return receipt


def counted(data: bytes | bytearray) -> Content:
    """Hash and length of some bytes."""
    return Content(hashlib.sha256(data).hexdigest(), len(data))
