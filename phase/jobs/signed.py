"""Runs a job, and signs a receipt for its result."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from phase.errors import unreadable
from phase.jobs.errors import JobRefusedError
from phase.jobs.flow import Streams
from phase.jobs.limits import Limits
from phase.jobs.runner import Execution, Job, Worker, execute
from phase.jobs.status import Exited, Status

if TYPE_CHECKING:
    from phase.identity import Identity


class Outcome(msgspec.Struct, frozen=True):
    """The result of a job, and the receipt for it.

    Args:
        status: how it ended.
        stdout: its output, also if it was stopped; empty if it went to a stream.
        stderr: the same.
        job_id: as given, or random.
        receipt: DSSE envelope, JSON.
        execution: the data that the receipt was made from, and further facts.
    """

    status: Status
    stdout: bytes
    stderr: bytes
    job_id: str
    receipt: bytes
    execution: Execution

    @property
    def exit_code(self) -> int | None:
        """The module's own exit code; None if it was stopped before it had one."""
        return self.status.code if isinstance(self.status, Exited) else None


def read_module(path: Path, limits: Limits) -> bytes:
    """Read a module, never more than its limit.

    Raises:
        JobRefusedError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.module_bytes + 1)
    except OSError as error:
        raise JobRefusedError(unreadable(f"module {path}", error)) from error
    if len(data) > limits.module_bytes:
        raise JobRefusedError(f"module {path} has more than {limits.module_bytes} bytes")
    return data


def run(
    module: bytes | Path,
    *,
    identity: "Identity",
    args: Sequence[str] = (),
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    job_id: str | None = None,
    nonce: str = "",
    worker: Worker | None = None,
    streams: Streams | None = None,
    seed: int | None = None,
) -> Outcome:
    """Run a module in a worker process and sign a receipt for it.

    Args:
        module: WebAssembly (WASI preview 1 command), or the file that holds it.
        identity: signs the receipt.
        args: the module's arguments, without the program name.
        stdin: its whole input.
        env: its whole environment.
        limits: of the job; the defaults when left out.
        job_id: 1 to 128 printable characters; random when left out.
        nonce: the requester's, up to 128 printable characters.
        worker: a warm worker; it ends with the job.
        streams: its input and outputs, instead of `stdin` and memory.
        seed: makes it a deterministic job.

    Raises:
        JobRefusedError: it exceeds its limits before it starts, or its id or nonce cannot be in a receipt.
        EngineError: there is no engine, or its worker broke.
    """
    limits = limits or Limits()
    if job_id is not None or nonce:
        # Refuse now: after the run there could not be a receipt for it.
        from phase.jobs.receipt import check_names

        check_names(job_id, nonce)
    with worker or Worker() as used:  # first, so that it loads while the module is read
        from phase.jobs import receipt as receipts

        data = read_module(module, limits) if isinstance(module, Path) else module
        job = Job(data, args=args, stdin=stdin, env=env or {}, limits=limits, seed=seed)
        execution = execute(job, used, streams)
    job_id = job_id if job_id is not None else os.urandom(16).hex()
    said = receipts.describe(job, execution, node=identity.public_key, job_id=job_id, nonce=nonce)
    return Outcome(
        status=execution.status,
        stdout=execution.stdout,
        stderr=execution.stderr,
        job_id=job_id,
        receipt=receipts.issue(said, identity),
        execution=execution,
    )
