"""`phase run`: run a WebAssembly module here and now."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from phase.cli import _outcome, printable
from phase.errors import PhaseError

if TYPE_CHECKING:
    from phase.cli._target import Target
    from phase.identity import Identity
    from phase.jobs.limits import Limits
    from phase.jobs.runner import Job, Worker
    from phase.jobs.status import Status


class _Run(click.Command):
    """Wrong usage has a code of its own here, because 2 may be the module's."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _usage():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _usage():
            return super().invoke(ctx)


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        error.show()
        sys.exit(_outcome.USAGE)


@click.command(
    "run", cls=_Run, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Give the module a variable.")
@click.option("--fuel", type=click.IntRange(1, 2**53 - 1), help="Engine instructions it may burn.")
@click.option("--wall", type=click.FloatRange(0.001, 86_400), help="Seconds it may take.")
@click.option("--memory", type=click.IntRange(0, 4096), help="MiB of memory it may have.")
@click.option("--output", type=click.IntRange(0, 1 << 30), help="Bytes it may print.")
@click.option("--receipt", type=click.Path(path_type=Path), help="Write a signed receipt there.")
@click.option("--state", type=click.Path(path_type=Path), help="Directory of the signing identity.")
@click.option("--ephemeral", is_flag=True, help="Sign with a key that is never written down.")
@click.option("--job-id", help="The job's name in the receipt.")
@click.option("--nonce", default="", help="The requester's nonce in the receipt.")
@click.option("--no-stdin", is_flag=True, help="Give the module no input.")
def command(
    module: Path,
    args: tuple[str, ...],
    env: tuple[str, ...],
    fuel: int | None,
    wall: float | None,
    memory: int | None,
    output: int | None,
    receipt: Path | None,
    state: Path | None,
    ephemeral: bool,
    job_id: str | None,
    nonce: str,
    no_stdin: bool,
) -> None:
    r"""Run MODULE with ARGS; its output and exit code become this command's.

    MODULE is WebAssembly for WASI preview 1, binary or text. The exit codes 0 to 125 are the module's own.

    \b
    126 rejected      134 trapped        142 wall limit    129 wrong usage
    127 not found     137 memory limit   152 fuel limit
    128 refused       141 output lost    153 output limit
    """
    variables = _environment(env)
    try:
        with ExitStack() as stack:
            # First, while the numbers of descriptors still mean what the person means by them.
            target = None if receipt is None else _target(stack, receipt, module, (*args, *env))
            from phase.jobs.runner import Job, Worker

            worker = stack.enter_context(Worker())
            limits = _limits(fuel, wall, memory, output)
            data = _module(module, limits)
            signer = None if target is None else _signer(state, ephemeral)
            _check_names(job_id, nonce)
            no_stdin = no_stdin or sys.stdin.isatty()
            given = b"" if no_stdin else sys.stdin.buffer.read(limits.stdin_bytes + 1)
            job = Job(data, args=args, stdin=given, env=variables, limits=limits)
            if target is None or signer is None:
                execution = worker.run(job)
                status, printed = execution.status, (execution.stdout, execution.stderr)
                code = _show(module, status, *printed)
            else:
                code = _run_signed(module, job, worker, signer, target, job_id, nonce)
    except KeyboardInterrupt:
        code = _outcome.INTERRUPTED
    except (PhaseError, OSError) as error:
        _say(str(error))
        code = _outcome.FAILED
    sys.exit(code)


def _run_signed(
    module: Path,
    job: "Job",
    worker: "Worker",
    signer: "Identity",
    target: "Target",
    job_id: str | None,
    nonce: str,
) -> int:
    from phase.jobs.run import run

    outcome = run(
        job.module,
        identity=signer,
        args=job.args,
        stdin=job.stdin,
        env=job.env,
        limits=job.limits,
        job_id=job_id,
        nonce=nonce,
        worker=worker,
    )
    code = _show(module, outcome.status, outcome.stdout, outcome.stderr)
    try:
        target.write(outcome.receipt)
    except PhaseError as error:
        _say(str(error))
        return _outcome.LOST
    return code


def _show(module: Path, status: "Status", stdout: bytes, stderr: bytes) -> int:
    """Print what the module printed, and say how it ended; the exit code for it."""
    from phase.jobs.status import Exited, explain

    code = _outcome.exit_code(status)
    for stream, data in ((sys.stdout, stdout), (sys.stderr, stderr)):
        try:
            _pour(stream, data)
        except OSError as error:
            code = _outcome.LOST
            # A reader that has left knows why; nothing more is to be said.
            if not isinstance(error, BrokenPipeError):
                _say(f"the module's output is lost: {error.strerror or error}")
    if not isinstance(status, Exited):
        _say(f"{module} {explain(status)}")
    return code


def _pour(stream: TextIO, data: bytes) -> None:
    """Write all of it, whether the descriptor blocks or not."""
    try:
        number = stream.fileno()
    except OSError:  # not a file, as in tests that replace the stream
        stream.buffer.write(data)
        return
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view[: 1 << 20]) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(number, select.POLLOUT)
            poll.poll()


def _say(text: str) -> None:
    try:
        click.echo(f"phase: {printable(text)}", err=True)
    except OSError:
        # There is nobody to tell. What is buffered must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _target(stack: ExitStack, path: Path, module: Path, words: tuple[str, ...]) -> "Target":
    from phase.cli._target import Target

    # In JSON in base64, one byte of a word may take eight.
    room = 8 * sum(len(word.encode("utf-8", "replace")) for word in words)
    return stack.enter_context(Target(path, module=module, room=room))


def _module(path: Path, limits: "Limits") -> bytes:
    from phase.jobs.errors import JobRefusedError
    from phase.jobs.run import read_module

    try:
        return read_module(path, limits)
    except JobRefusedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        _say(str(error))
        sys.exit(_outcome.NOT_FOUND)


def _limits(fuel: int | None, wall: float | None, memory: int | None, output: int | None) -> "Limits":
    from phase.jobs.limits import MIB, Limits

    given: dict[str, Any] = {
        "fuel": fuel,
        "wall_seconds": wall,
        "memory_bytes": None if memory is None else memory * MIB,
        "output_bytes": output,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _signer(state: Path | None, ephemeral: bool) -> "Identity":
    from phase.identity import Identity

    if ephemeral:
        return Identity.ephemeral()
    from phase.cli.init import identity_in

    return identity_in(state)


def _check_names(job_id: str | None, nonce: str) -> None:
    # Most runs have neither, and need not load what knows the rule.
    if job_id is not None or nonce:
        from phase.jobs.receipt import check_names

        check_names(job_id, nonce)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found
