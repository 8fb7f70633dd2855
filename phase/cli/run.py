"""`phase run`: run a WebAssembly module here and now."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from phase.cli import _outcome, printable
from phase.errors import PhaseError

if TYPE_CHECKING:
    from phase.cli._target import Target
    from phase.identity import Identity
    from phase.jobs.limits import Limits
    from phase.jobs.runner import Execution, Job, Worker


class LostError(PhaseError):
    """The module ran, and something of what came out could not be written."""


class _EndedError(BaseException):
    """A signal has asked this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Clean up before SIGTERM or SIGHUP ends this process: a receipt that was begun goes away."""

    def end(number: int, _frame: object) -> None:
        raise _EndedError(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    # What the caller has it ignore stays ignored (nohup); only the main thread may ask.
    mine = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        mine = []
    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


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
    except KeyboardInterrupt:
        sys.exit(_outcome.INTERRUPTED)
    except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
        raise
    except MemoryError:
        _say("there is not enough memory to run a job")
        sys.exit(_outcome.FAILED)
    except Exception:  # Python's own code for it is 1, which may be the module's
        import traceback

        traceback.print_exc()
        sys.exit(_outcome.FAILED)


class _Seconds(click.FloatRange):
    """A range that NaN is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


@click.command("run", cls=_Run, context_settings={"allow_interspersed_args": False})
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Give the module a variable.")
@click.option("--fuel", type=click.IntRange(1, 2**53 - 1), help="Engine instructions it may burn.")
@click.option("--wall", type=_Seconds(0.001, 86_400), help="Seconds it may take.")
@click.option("--memory", type=click.IntRange(0, 4096), help="MiB of memory it may have.")
@click.option("--compile", "compiler", type=click.IntRange(16, 4096), help="MiB for compiling it.")
@click.option("--output", type=click.IntRange(0, 1 << 30), help="Bytes it may print.")
@click.option("--receipt", type=click.Path(path_type=Path), help="Write a signed receipt there.")
@click.option("--state", type=click.Path(path_type=Path), help="Directory of the signing identity.")
@click.option("--ephemeral", is_flag=True, help="Sign with a key that is never written down.")
@click.option("--job-id", help="The job's name in the receipt.")
@click.option("--nonce", default="", help="The requester's nonce in the receipt.")
@click.option(
    "--cage",
    type=click.Choice(["best", "whole"]),
    default="best",
    show_default=True,
    envvar="PHASE_CAGE",
    help="Whether to run it where the kernel refuses a part of the worker's cage.",
)
@click.option("--no-stdin", is_flag=True, help="Give the module no input.")
def command(
    module: Path,
    args: tuple[str, ...],
    env: tuple[str, ...],
    fuel: int | None,
    wall: float | None,
    memory: int | None,
    compiler: int | None,
    output: int | None,
    receipt: Path | None,
    state: Path | None,
    ephemeral: bool,
    job_id: str | None,
    nonce: str,
    cage: Literal["best", "whole"],
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
        with _ended_by_signals(), ExitStack() as stack:
            # First, while the numbers of descriptors still mean what the person means by them.
            target = None if receipt is None else _target(stack, receipt, module, (*args, *env))
            from phase.jobs.runner import Job, Worker

            worker = stack.enter_context(Worker(cage))
            limits = _limits(fuel, wall, memory, compiler, output)
            job = Job(_module(module, limits), args=args, env=variables, limits=limits)
            signer = None if target is None else _signer(state, ephemeral)
            _check_names(job_id, nonce)
            execution = _execute(worker, job, no_stdin)
            code = _tell(module, execution)
            if target is not None and signer is not None:
                _sign(job, execution, signer, target, job_id, nonce)
    except KeyboardInterrupt:
        code = _outcome.INTERRUPTED
    except _EndedError as ended:
        # As any program that a signal ends, once nothing is left behind.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
        code = 128 + ended.number
    except LostError as error:
        _say(str(error))
        code = _outcome.LOST
    except (PhaseError, OSError) as error:
        _say(str(error))
        code = _outcome.FAILED
    sys.exit(code)


def _execute(worker: "Worker", job: "Job", no_stdin: bool) -> "Execution":
    """Run the job on this process's own streams."""
    from phase.jobs.flow import Descriptor, Streams

    try:
        numbers = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
    except OSError:  # they are not files, where the command is called from Python
        given = b"" if no_stdin else sys.stdin.buffer.read(job.limits.stdin_bytes + 1)
        execution = worker.run(type(job)(job.module, job.args, given, job.env, job.limits))
        sys.stdout.buffer.write(execution.stdout)
        sys.stderr.buffer.write(execution.stderr)
        return execution
    stdin, stdout, stderr = map(Descriptor, numbers)
    return worker.run(job, Streams(stdin=None if no_stdin else stdin, stdout=stdout, stderr=stderr))


def _tell(module: Path, execution: "Execution") -> int:
    """Say what is to be said about a job that has ended; the exit code for it."""
    from phase.jobs.status import Exited, explain

    for protection in execution.missing:
        _say(f"{module} ran with less protection: {protection}")
    code = _outcome.exit_code(execution.status)
    if not isinstance(execution.status, Exited) or code != execution.status.code:
        _say(f"{module} {explain(execution.status)}")
    for name, error in execution.undelivered.items():
        code = _outcome.LOST
        # A reader that has left knows why; nothing more is to be said.
        if not isinstance(error, BrokenPipeError):
            what = "ended early" if name == "stdin" else "is lost"
            _say(f"{name} of the module {what}: {error.strerror or error}")
    return code


def _sign(
    job: "Job", execution: "Execution", signer: "Identity", target: "Target", job_id: str | None, nonce: str
) -> None:
    from phase.jobs import receipt as receipts

    name = os.urandom(16).hex() if job_id is None else job_id
    said = receipts.describe(job, execution, node=signer.public_key, job_id=name, nonce=nonce)
    try:
        target.write(receipts.issue(said, signer))
    except PhaseError as error:
        raise LostError(str(error)) from error


def _say(text: str) -> None:
    try:
        click.echo(f"phase: {printable(text)}", err=True)
    except OSError:
        # Stderr is gone. The interpreter must not try to write the buffered text again when it ends.
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


def _limits(
    fuel: int | None, wall: float | None, memory: int | None, compiler: int | None, output: int | None
) -> "Limits":
    from phase.jobs.limits import MIB, Limits

    given: dict[str, Any] = {
        "fuel": fuel,
        "wall_seconds": wall,
        "memory_bytes": None if memory is None else memory * MIB,
        "compile_bytes": None if compiler is None else compiler * MIB,
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
