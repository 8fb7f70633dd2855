"""The node of a booted system: has an identity, and runs the hello job that proves the boot.

People run `phase node`; the system's own scripts call `main`, which needs this module only: under
emulation, the parser of the command line takes longer to load than everything here. The daemon that takes
jobs is in the other modules of this package, and nothing here imports them.
"""

import sys
from pathlib import Path

from phase import marks, modes
from phase.errors import PhaseError, printable

STATE = Path("/var/lib/phase")
RECEIPTS = Path("/run/phase/receipts")
MODULE = Path("/usr/share/phase/hello.wasm")
HELLO = b"Hello, World"
IDENTITY = "identity.json"
JOBS = ("hello",)


class NodeError(PhaseError):
    """The node could not run its job, or keep the receipt."""


def run_job(
    name: str,
    *,
    state: Path = STATE,
    module: Path = MODULE,
    receipts: Path = RECEIPTS,
    ephemeral: bool = False,
) -> bool:
    """Run a named job, keep its receipt, mark the step `job`, and say in a plain line how it went.

    Args:
        name: one of `JOBS`.
        state: directory of the identity; created if it does not exist.
        module: the job's WebAssembly.
        receipts: directory for `{job_id}.json`.
        ephemeral: use a key that dies with this process instead of `state`.

    Returns:
        Whether the module exited with code 0. If not, and on every error below, the mark's
        outcome is `failed` and says why; `refused` on a processor that the engine cannot run on.

    Raises:
        NodeError: there is no job of this name, or the receipt cannot be kept.
        PhaseError: the identity, the engine or the module is missing.
    """
    try:
        if name not in JOBS:
            raise NodeError(f"no job named {name!r}", hint=f"Known: {', '.join(JOBS)}")
        return _hello(state, module, receipts, ephemeral=ephemeral)
    except (PhaseError, OSError) as error:
        # A machine that cannot run jobs has booted all the same, and can serve.
        outcome = "refused" if _unsuitable(error) else "failed"
        marks.emit("job", outcome, job=name, reason=str(error))
        marks.say(f"the {printable(name)[:40]} job has failed: {error}")
        if isinstance(error, OSError):
            raise NodeError(f"job {name} failed: {error}") from error
        raise


def _unsuitable(error: Exception) -> bool:
    from phase.jobs.errors import UnsuitableProcessorError

    return isinstance(error, UnsuitableProcessorError)


def _hello(state: Path, module: Path, receipts: Path, *, ephemeral: bool) -> bool:
    from phase.jobs.runner import Worker

    with Worker() as worker:  # it loads its engine while we load keys
        from phase import files
        from phase.identity import Identity
        from phase.jobs.signed import run
        from phase.jobs.status import Exited, explain

        if ephemeral:
            identity = Identity.ephemeral()
        else:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            identity = Identity.load_or_create(state / IDENTITY)
        outcome = run(module, identity=identity, stdin=HELLO, worker=worker)
    path = receipts / f"{outcome.job_id}.json"
    receipts.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A line of its own, so that a console that shows it puts no prompt behind it.
    files.write(path, outcome.receipt + b"\n")
    text = outcome.stdout.decode("utf-8", "replace")
    passed = isinstance(outcome.status, Exited) and outcome.status.code == 0
    facts: dict[str, marks.Fact] = {
        "job": "hello",
        "job_id": outcome.job_id,
        "stdout": text[:200],
        "receipt": str(path),
        "node": identity.public_key,
    }
    if not passed:
        facts["reason"] = explain(outcome.status)
    marks.emit("job", "ok" if passed else "failed", t=None, **facts)
    if passed:
        marks.say(f"the hello job has passed; its receipt is {path}")
    else:
        marks.say(f"the hello job has failed: {facts['reason']}")
    return passed


def main() -> int:
    """Run the job that the first argument names, in the mode that the second names.

    Returns:
        The exit code: 0 passed, 1 failed, with the reason on stderr.
    """
    try:
        return 0 if run_job(sys.argv[1], ephemeral=not modes.of(sys.argv[2]).lasting) else 1
    except PhaseError as error:
        print(f"phase: {printable(str(error))}", file=sys.stderr)
        return 1
