"""`phase run`: run a WebAssembly module here and now."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from phase.errors import PhaseError


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("module", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Give the module a variable.")
@click.option("--fuel", type=click.IntRange(1, 2**53 - 1), help="Engine instructions it may burn.")
@click.option("--wall", type=click.FloatRange(0.001, 86_400), help="Seconds it may take.")
@click.option("--memory", type=click.IntRange(0, 4096), help="MiB of memory it may have.")
@click.option("--output", type=click.IntRange(0, 1 << 30), help="Bytes it may print.")
@click.option("--receipt", type=click.Path(path_type=Path), help="Write a signed receipt to this file.")
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
    """Run MODULE with ARGS; its output and exit code become this command's."""
    from phase.jobs.runner import Job, Worker
    from phase.jobs.status import Exited, explain

    try:
        with Worker() as worker:
            from phase.jobs.limits import MIB, Limits
            from phase.jobs.run import read_module, run

            given: dict[str, Any] = {
                "fuel": fuel,
                "wall_seconds": wall,
                "memory_bytes": None if memory is None else memory * MIB,
                "output_bytes": output,
            }
            limits = Limits(**{name: value for name, value in given.items() if value is not None})
            no_stdin = no_stdin or sys.stdin.isatty()
            job = Job(
                read_module(module, limits),
                args=args,
                stdin=b"" if no_stdin else sys.stdin.buffer.read(limits.stdin_bytes + 1),
                env=_environment(env),
                limits=limits,
            )
            if receipt is None:
                execution = worker.run(job)
                status, stdout, stderr = execution.status, execution.stdout, execution.stderr
            else:
                from phase import files
                from phase.cli.init import default_state
                from phase.identity import Identity
                from phase.node import IDENTITY

                directory = state or default_state()
                if not ephemeral:
                    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                signer = Identity.ephemeral() if ephemeral else Identity.load_or_create(directory / IDENTITY)
                outcome = run(
                    job.module,
                    identity=signer,
                    args=args,
                    stdin=job.stdin,
                    env=job.env,
                    limits=limits,
                    job_id=job_id,
                    nonce=nonce,
                    worker=worker,
                )
                status, stdout, stderr = outcome.status, outcome.stdout, outcome.stderr
                files.write(receipt, outcome.receipt)
    except (PhaseError, OSError) as error:
        click.echo(f"phase run: {error}", err=True)
        sys.exit(1)
    code = status.code if isinstance(status, Exited) else 1
    try:
        for stream, data in ((sys.stdout, stdout), (sys.stderr, stderr)):
            stream.buffer.write(data)
            stream.flush()
        if not isinstance(status, Exited):
            click.echo(f"phase run: {module} {explain(status)}", err=True)
    except BrokenPipeError:
        # Whoever read us has left; without this the interpreter complains again on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    sys.exit(code)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found
