"""`phase run`: run a WebAssembly module here and now."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from phase.cli import _files, _options, _outcome, printable, usage
from phase.cli._options import option
from phase.cli._tell import note
from phase.errors import PhaseError

if TYPE_CHECKING:
    from phase.cli._target import Target
    from phase.identity import Identity
    from phase.jobs.cache import Cache
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


class Coded(click.Command):
    """Wrong usage has a code of its own here, because 2 may be the module's."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click does."""
        with _usage():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """As click does."""
        with _usage():
            return super().invoke(ctx)


@contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        usage(error)
        sys.exit(_outcome.USAGE)
    except PhaseError as error:
        note(str(error))
        sys.exit(_outcome.FAILED)
    except KeyboardInterrupt:
        sys.exit(_outcome.INTERRUPTED)
    except (click.exceptions.Exit, click.ClickException, BrokenPipeError):
        raise
    except MemoryError:
        note("there is not enough memory to run a job")
        sys.exit(_outcome.FAILED)
    except Exception:  # Python's own code for it is 1, which may be the module's
        import traceback

        traceback.print_exc()
        sys.exit(_outcome.FAILED)


def _standard(name: str, unit: int = 1, suffix: str = "") -> Callable[[], str]:
    """The default of a limit, for the help alone: most runs need not load it."""

    def text() -> str:
        from phase.jobs.limits import Limits

        return f"{getattr(Limits(), name) / unit:,.0f}{suffix}"

    return text


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a command was told of a job, wherever it runs. As the options are called."""

    env: tuple[str, ...]
    fuel: int | None
    wall: float | None
    memory: int | None
    compile: int | None
    max_output: int | None
    receipt: Path | None
    state: Path | None
    job_id: str | None
    nonce: str
    no_stdin: bool
    deterministic: bool
    seed: int | None
    input: tuple[str, ...]
    output: tuple[str, ...]
    scratch: int | None

    @property
    def world(self) -> int | None:
        """The seed of a deterministic job; None for any other."""
        return 0 if self.deterministic and self.seed is None else self.seed

    def limits(self) -> "Limits":
        """The limits of the job."""
        limits = _limits(self.fuel, self.wall, self.memory, self.compile, self.max_output)
        if self.scratch is None:
            return limits
        from msgspec.structs import replace

        return replace(limits, scratch_bytes=self.scratch << 20)

    def variables(self) -> dict[str, str]:
        """The module's environment."""
        return _variables(self.env)


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """What `phase run` was told, beside the module and its arguments."""

    ephemeral: bool
    cage: Literal["best", "whole"]
    no_cache: bool
    dir: tuple[str, ...]

    def signer(self) -> "Identity":
        """Who signs the receipt."""
        from phase.identity import Identity

        if self.ephemeral:
            return Identity.ephemeral()
        from phase.cli.init import identity_in

        return identity_in(self.state)

    def check_names(self) -> None:
        """Refuse names that a receipt cannot have. Most runs have none, and need not load the rule."""
        if self.job_id is not None or self.nonce:
            from phase.jobs.receipt import check_names

            check_names(self.job_id, self.nonce)


def _limits(
    fuel: int | None, wall: float | None, memory: int | None, compiling: int | None, max_output: int | None
) -> "Limits":
    """The limits that options give; of the others, the defaults.

    Args:
        fuel: of `--fuel`.
        wall: of `--wall`, seconds.
        memory: of `--memory`, MiB.
        compiling: of `--compile`, MiB.
        max_output: of `--max-output`, bytes.
    """
    from phase.jobs.limits import MIB, Limits

    given: dict[str, Any] = {
        "fuel": fuel,
        "wall_seconds": wall,
        "memory_bytes": None if memory is None else memory * MIB,
        "compile_bytes": None if compiling is None else compiling * MIB,
        "output_bytes": max_output,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """The environment that `--env` gives.

    Raises:
        click.BadParameter: one is not NAME=VALUE.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found


def own(ctx: click.Context, _: click.Parameter, args: tuple[str, ...]) -> tuple[str, ...]:
    """The module's arguments: an option of ours among them is a mistake, unless `--` says that it is not.

    Raises:
        click.UsageError: one is there; a limit or a receipt must not be left out silently.
    """
    if args[:1] == ("--",):
        return args[1:]
    path = ctx.command_path
    ours = {name for option in ctx.command.params for name in option.opts if name.startswith("--")}
    for word in args:
        if (name := word.partition("=")[0]) in ours:
            raise click.UsageError(
                f"{printable(name)} is behind the module. For Phase, give it before: `{path} {name} ... "
                f"MODULE`; for the module, write `--` between: `{path} MODULE -- {name} ...`.",
                ctx=ctx,
            )
    return args


@click.command("run", cls=Coded, context_settings={"allow_interspersed_args": False})
@click.argument("module", type=_options.PLACE)
@click.argument("args", nargs=-1, type=click.UNPROCESSED, callback=own)
@option("--env", multiple=True, metavar="NAME=VALUE", help="Give the module a variable; repeat for more.")
@option(
    "--fuel",
    type=click.IntRange(1, 2**53 - 1),
    metavar="N",
    standard=_standard("fuel"),
    help="Engine instructions it may burn.",
)
@option(
    "--wall",
    type=_options.Seconds(0.001, 86_400),
    metavar="SECONDS",
    standard=_standard("wall_seconds", suffix=" s"),
    help="How long it may take.",
)
@option(
    "--memory",
    type=click.IntRange(0, 4096),
    metavar="MIB",
    standard=_standard("memory_bytes", 1 << 20, " MiB"),
    help="Memory it may have.",
)
@option(
    "--compile",
    type=click.IntRange(16, 4096),
    metavar="MIB",
    standard=_standard("compile_bytes", 1 << 20, " MiB at most, by its code"),
    help="Memory for compiling it.",
)
@option(
    "--max-output",
    type=click.IntRange(0, 1 << 30),
    metavar="BYTES",
    standard=_standard("output_bytes", suffix=" bytes"),
    help="How much it may print.",
)
@option("--receipt", once=True, type=_options.PLACE, metavar="FILE", help="Write a signed receipt there.")
@_options.state
@option("--ephemeral", is_flag=True, help="Sign with a key that is never written down.")
@option(
    "--job-id", once=True, metavar="TEXT", standard="a random one", help="The job's name in the receipt."
)
@option("--nonce", once=True, metavar="TEXT", default="", help="The requester's nonce in the receipt.")
@option(
    "--cage",
    type=click.Choice(["best", "whole"]),
    default="best",
    help="Whether to run it where the kernel refuses a part of the worker's cage: best does.",
)
@option("--no-stdin", is_flag=True, help="Give the module no input.")
@option("--no-cache", is_flag=True, help="Compile the module even if it is kept compiled, and keep nothing.")
@option(
    "--deterministic",
    is_flag=True,
    help="Give it random bytes of a seed and clocks of its own, so that it ends the same everywhere.",
)
@option(
    "--seed",
    type=click.IntRange(0, 2**53 - 1),
    metavar="N",
    standard="0 with --deterministic",
    help="The seed of its random bytes; it makes the job deterministic.",
)
@option(
    "--dir",
    multiple=True,
    metavar="HOST[::GUEST][:ro]",
    help="Let it use a directory of this machine, under the name GUEST, or only read it; repeat for more.",
)
@option(
    "--input",
    once=True,
    multiple=True,
    metavar="NAME=FILE",
    help="Give it the content of FILE as /input/NAME; repeat for more.",
)
@option(
    "--output",
    once=True,
    multiple=True,
    metavar="NAME[=FILE]",
    help="Bring back /output/NAME when it has exited, as FILE; repeat for more.",
)
@option(
    "--scratch",
    type=click.IntRange(0, 1024),
    metavar="MIB",
    standard="none",
    help="Room for files of its own in /tmp; they are in memory, and count as its memory.",
)
def command(module: Path, args: tuple[str, ...], **given: Any) -> None:
    """Run MODULE with ARGS; its output and exit code become this command's.

    MODULE is WebAssembly, binary or text: a module for WASI preview 1, or a component for WASI 0.2. Options
    of Phase come before it, its own arguments behind it. The exit codes 0 to 125 are the module's own.

    \b
    126 rejected      134 trapped        142 wall limit    129 wrong usage
    127 not found     137 memory limit   152 fuel limit
    128 refused       141 output lost    153 output limit
    """  # noqa: D301  click wants the character
    options = Options(**given)
    variables = options.variables()
    try:
        with _ended_by_signals(), ExitStack() as stack:
            # First, while the numbers of descriptors still mean what the person means by them.
            target = _target(stack, options, module, args)
            from phase.jobs.runner import Job, Worker, grant_of

            limits = options.limits()
            files = _files.of(options, limits) if _files.asked(options) else {}
            grant = grant_of(Job(b"", limits=limits, seed=options.world, **files)) if files else None
            worker = stack.enter_context(Worker(options.cage, grant))
            job = Job(
                read_module(module, limits),
                args=args,
                env=variables,
                limits=limits,
                seed=options.world,
                **files,
            )
            signer = None if target is None else options.signer()
            options.check_names()
            execution = _execute(worker, job, options)
            code = _tell(module, execution)
            code = _files.bring(options.output, module, execution) or code
            if target is not None and signer is not None:
                _sign(job, execution, signer, target, options)
    except KeyboardInterrupt:
        code = _outcome.INTERRUPTED
    except _EndedError as ended:
        # As any program that a signal ends, once nothing is left behind.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
        code = 128 + ended.number
    except LostError as error:
        note(str(error))
        code = _outcome.LOST
    except (PhaseError, OSError) as error:
        note(str(error))
        code = _outcome.FAILED
    sys.exit(code)


def _cache() -> "Cache | None":
    """This user's compiled modules; None where they cannot be kept."""
    from phase.jobs.cache import Cache, CacheError, Directory, usual_directory

    try:
        return Cache(Directory(usual_directory()))
    except CacheError as error:
        note(f"no compiled module is used or kept: {error}")
    except OSError:  # no home, or it is read-only
        pass
    return None


def _execute(worker: "Worker", job: "Job", options: Options) -> "Execution":
    """Run the job on this process's own streams."""
    from phase.jobs.flow import Descriptor, Streams

    no_stdin, cache = options.no_stdin, None if options.no_cache else _cache()
    try:
        numbers = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
    except OSError:  # they are not files, where the command is called from Python
        execution = worker.run(job if no_stdin else _with_input(job), cache=cache)
        sys.stdout.buffer.write(execution.stdout)
        sys.stderr.buffer.write(execution.stderr)
        return execution
    stdin, stdout, stderr = map(Descriptor, numbers)
    if job.seed is not None and not no_stdin:
        job, no_stdin = _with_input(job), True
    streams = Streams(stdin=None if no_stdin else stdin, stdout=stdout, stderr=stderr)
    return worker.run(job, streams, cache)


def _with_input(job: "Job") -> "Job":
    """The job with all of this process's input; one byte more than the limit is too much."""
    import msgspec

    return msgspec.structs.replace(job, stdin=sys.stdin.buffer.read(job.limits.stdin_bytes + 1))


def _tell(module: Path, execution: "Execution") -> int:
    """Say what is to be said about a job that has ended; the exit code for it."""
    from phase.jobs.status import Exited, explain

    for protection in execution.missing:
        note(f"{module} ran with less protection: {protection}")
    code = _outcome.exit_code(execution.status)
    if not isinstance(execution.status, Exited) or code != execution.status.code:
        note(f"{module} {explain(execution.status)}")
    for name, error in execution.undelivered.items():
        code = _outcome.LOST
        # A reader that has left knows why; nothing more is to be said.
        if not isinstance(error, BrokenPipeError):
            what = "ended early" if name == "stdin" else "is lost"
            note(f"{name} of the module {what}: {error.strerror or error}")
    return code


def _sign(
    job: "Job", execution: "Execution", signer: "Identity", target: "Target", options: Options
) -> None:
    from phase.jobs import receipt as receipts

    name = os.urandom(16).hex() if options.job_id is None else options.job_id
    said = receipts.describe(job, execution, node=signer.public_key, job_id=name, nonce=options.nonce)
    try:
        target.write(receipts.issue(said, signer))
    except PhaseError as error:
        raise LostError(str(error)) from error


def _target(stack: ExitStack, options: Options, module: Path, args: tuple[str, ...]) -> "Target | None":
    if options.receipt is None:
        return None
    from phase.cli._target import Target

    # In JSON in base64, one byte of a word may take eight.
    room = 8 * sum(len(word.encode("utf-8", "replace")) for word in (*args, *options.env))
    return stack.enter_context(Target(options.receipt, module=module, room=room))


def read_module(path: Path, limits: "Limits") -> bytes:
    """Read a module; the process ends with a code of its own where there is none."""
    from phase.jobs import signed
    from phase.jobs.errors import JobRefusedError

    try:
        return signed.read_module(path, limits)
    except JobRefusedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        note(str(error))
        sys.exit(_outcome.NOT_FOUND)
