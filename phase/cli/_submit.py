"""What the commands of `phase job` do at a node."""

import asyncio
import base64
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, cast

import click

from phase.arch import canonical
from phase.cli import _files, _outcome, peers
from phase.cli._tell import Out, note
from phase.cli.facts import JobEnded, JobTaken
from phase.cli.init import default_state, identity_in
from phase.cli.run import JobOptions, LostError, read_module
from phase.client import (
    Client,
    ClientError,
    JobLostError,
    NotKeptError,
    NotRunError,
    RejectedError,
    Result,
    Submission,
    Task,
    UntrueError,
    copies,
)
from phase.client.book import Book, Remembered
from phase.client.spread import ELSEWHERE
from phase.client.submission import Input
from phase.client.task import Asked
from phase.client.words import check_name, check_text
from phase.discovery.records import DiscoveryError
from phase.errors import PhaseError
from phase.jobs.limits import MIB
from phase.jobs.status import Exited, explain
from phase.peer.errors import PeerError, UnreachableError
from phase.peer.messages import JobStatus
from phase.peer.transport import Address

if TYPE_CHECKING:
    from phase.cli._target import Target
    from phase.client.task import Architecture
    from phase.jobs.limits import Limits

_CHUNK = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """What `phase job submit` was told. As the options are called."""

    module: Path
    args: tuple[str, ...]
    nodes: tuple[str, ...]
    copies: str | None
    arch: str
    runtime: str
    dht: tuple[tuple[str, int], ...]
    detach: bool
    as_json: bool
    #: Directories are of the machine that runs the job, and no client may name any.
    dir: tuple[str, ...] = ()


def submit(options: Options) -> int:
    """Give a job to a node; returns the exit code."""
    _check(options)
    limits, seed = options.limits(), options.world
    files = _files.of(options, limits)
    task = Task(
        module=read_module(options.module, limits),
        args=options.args,
        env=options.variables(),
        limits=limits,
        stdin=b"" if seed is None or options.no_stdin else _whole_input(limits),
        seed=seed,
        arch=None if options.arch == "any" else cast("Architecture", canonical(options.arch)),
        runtime=options.runtime,
        inputs=files["inputs"],
        outputs=tuple(files["outputs"]),
    )
    try:
        addresses = _places(options, limits)
    except (UnreachableError, DiscoveryError) as error:
        return _told(error, _outcome.UNREACHABLE)
    streamed = seed is None and not options.no_stdin

    async def give(client: Client) -> int:
        if options.copies is not None:
            return await _copied(client, addresses, task, options, target)
        source = standard_input() if streamed else None
        made, address = await _first(client, addresses, task, options, source)
        if options.detach:
            return _left(made, address, options)
        return await _carried(made, options, target)

    with ExitStack() as stack:
        target = _target(stack, options.receipt, options.module)
        return with_client(options.state, give)


def _check(options: Options) -> None:
    """Find what no node takes, before input is read or anything sent."""
    if options.job_id is not None:
        check_name("job id", options.job_id)
    check_name("nonce", options.nonce)
    try:
        check_text("argument", options.args)
        check_text("variable", options.env)
    except ClientError as error:
        raise click.UsageError(error.what) from error


def _places(options: Options, limits: "Limits") -> list[Address]:
    """The nodes to ask: those that are named, or those that the DHT tells of."""
    if options.nodes:
        return [Address.parse(each) for each in options.nodes]
    if not options.dht:
        raise click.UsageError("--node is missing: KEY[@HOST:PORT]; or --dht, to look for one")
    memory = -(-limits.memory_bytes // MIB)
    count = 1 if options.copies is None else _shares(options.copies)[1]
    found = peers.search(options.dht, options.arch, options.runtime, memory, peers.SECONDS, enough=count)
    if not found:
        raise UnreachableError(
            f"no node with {options.runtime}, architecture {options.arch} and {memory} MiB was found",
            hint="`phase peers` shows those that there are.",
        )
    return [each.address for each in found]


async def _first(
    client: Client, addresses: list[Address], task: Task, options: Options, source: Input | None
) -> tuple[Submission, Address]:
    """Give a job to the first node that takes it.

    Input that a node has begun to take cannot be given to another: it would get the rest of it.
    """
    last, given = len(addresses) - 1, False

    async def noticed(parts: Input) -> AsyncIterator[bytes]:
        nonlocal given
        given = True
        async for part in parts:
            yield part

    watched = None if source is None else noticed(source)
    job, nonce = options.job_id or os.urandom(16).hex(), options.nonce or os.urandom(16).hex()
    for number, address in enumerate(addresses):
        try:
            made = await client.submit(
                address,
                task,
                job=job,
                nonce=nonce,
                source=watched,
                detached=options.detach,
            )
        except JobLostError:
            if options.detach:  # it may run, so it can be asked for
                _remember(job, address, task.asked(nonce, client.key), options)
            raise
        except (RejectedError, PeerError) as error:
            elsewhere = not isinstance(error, RejectedError) or error.reason in ELSEWHERE
            if number == last or given or not elsewhere:
                raise
            note(f"{address.key[:16]}: {error}; trying the next node")
        else:
            return made, address
    raise AssertionError("the last node either took the job or raised")


def _shares(text: str) -> tuple[int, int]:
    """K and N of `--copies K/N`.

    Raises:
        click.BadParameter: it is not that.
    """
    wanted, slash, count = text.partition("/")
    if not (slash and wanted.isdecimal() and count.isdecimal() and 1 <= int(wanted) <= int(count) <= 64):
        raise click.BadParameter(f"{text!r} is not K/N, such as 2/3", param_hint="--copies")
    return int(wanted), int(count)


async def _copied(
    client: Client, addresses: list[Address], task: Task, options: Options, target: "Target | None"
) -> int:
    """Run a job on several nodes, and compare."""
    wanted, count = _shares(options.copies or "")
    if count > len(addresses):
        raise click.BadParameter(
            f"{count} copies need as many nodes; there are {len(addresses)}", param_hint="--copies"
        )
    if options.detach or task.seed is None:
        raise click.UsageError("--copies is for jobs with --deterministic or --seed, and without --detach")
    try:
        found = await copies.run(client, addresses[:count], task, wanted, job=options.job_id)
    except copies.DisagreedError as error:
        note(str(error))
        _sides(error)
        _keep(target, [each for side in error.sides for each in side])
        return _outcome.DISAGREED
    for key, failure in found.failed.items():
        note(f"{key[:16]}: {failure}")
    for each in found.others:
        note(f"node {each.node} says something else: stdout sha256:{each.receipt.stdout.sha256}")
    results = [*found.agreed, *found.others]
    if not options.as_json:
        _write(1, found.result.stdout)
        _write(2, found.result.stderr)
    _keep(target, results)
    code = _ended(found.result, found.result.receipt.job.id, as_json=options.as_json, target=None)
    return _files.bring(options.output, options.module, found.result) or code


def _sides(error: copies.DisagreedError) -> None:
    for side in error.sides:
        said = side[0].receipt
        keys = " ".join(each.node for each in side)
        note(f"{explain(said.status)}, stdout sha256:{said.stdout.sha256}: {keys}")
    for key, failure in error.failed.items():
        note(f"{key}: {failure}")


def _keep(target: "Target | None", results: list[Result]) -> None:
    """Write the receipts of several nodes, one on each line."""
    if target is not None:
        try:
            target.write(b"".join(each.envelope + b"\n" for each in results))
        except PhaseError as error:
            raise LostError(str(error)) from error


def _remember(job: str, address: Address, asked: Asked, options: Options) -> None:
    book(options.state).write(Remembered(job=job, node=str(address), asked=asked, submitted=time()))


def _left(made: Submission, address: Address, options: Options) -> int:
    """Remember a detached job, and say its id."""
    _remember(made.job, address, made.asked, options)
    out = Out(options.as_json)
    out.done = True
    out.facts(JobTaken(job=made.job, node=made.node))
    out.line(f"job {made.job}")
    return 0


async def _carried(made: Submission, options: Options, target: "Target | None") -> int:
    """Carry a job's output as it comes, and its receipt."""
    if made.waiting and sys.stderr.isatty():
        note(f"jobs that wait before this one: {made.waiting}")
    if not options.as_json:
        async for name, data in made.outputs():
            _write(1 if name == "stdout" else 2, data)
    result = await made.result()
    code = _ended(result, made.job, as_json=options.as_json, target=target)
    return _files.bring(options.output, options.module, result) or code


def _ended(result: Result, job: str, *, as_json: bool, target: "Target | None") -> int:
    code = _outcome.exit_code(result.status)
    if target is not None:
        try:
            target.write(result.envelope)
        except PhaseError as error:
            raise LostError(str(error)) from error
    if not as_json and (not isinstance(result.status, Exited) or code != result.status.code):
        note(f"job {job} {explain(result.status)}")
    encode = base64.b64encode
    out = Out(as_json)
    out.done = True
    out.facts(
        JobEnded(
            job=job,
            node=result.node,
            nonce=result.receipt.job.nonce,
            status=result.status,
            exit_code=code,
            stdout=encode(result.stdout).decode(),
            stderr=encode(result.stderr).decode(),
            receipt=encode(result.envelope).decode(),
        )
    )
    return code


def result(
    job: str,
    node: str | None,
    state: Path | None,
    *,
    as_json: bool,
    receipt: Path | None,
    output: tuple[str, ...],
) -> int:
    """Fetch the result of a detached job; returns the exit code."""
    address = where(job, node, state)
    known = book(state).find(job, address.key)

    async def ask(client: Client) -> int:
        found = await client.fetch(address, job, None if known is None else known.asked)
        if not as_json:
            _write(1, found.stdout)
            _write(2, found.stderr)
        code = _ended(found, job, as_json=as_json, target=target)
        return _files.bring(output, f"job {job}", found) or code

    with ExitStack() as stack:
        target = _target(stack, receipt, None)
        return with_client(state, ask)


def _target(stack: ExitStack, receipt: Path | None, module: Path | None) -> "Target | None":
    if receipt is None:
        return None
    from phase.cli._target import Target

    return stack.enter_context(Target(receipt, module=module or receipt.parent / "no-module", room=0))


def where(job: str, node: str | None, state: Path | None) -> Address:
    """The address of the node that has a job.

    Raises:
        PhaseError: nothing says where it is, or no job has this id.
    """
    check_name("job id", job)
    if node is not None:
        return Address.parse(node)
    known = book(state).find(job)
    if known is None:
        raise PhaseError(
            f"job {job} was not detached from here", hint="Name its node: --node KEY@HOST:PORT."
        )
    return Address.parse(known.node)


def book(state: Path | None) -> Book:
    """The jobs that were detached from a state directory."""
    return Book((state or default_state()) / "jobs")


def tell(
    address: Address, state: Path | None, ask: Callable[[Client], Awaitable[JobStatus]], out: Out
) -> None:
    """Ask a node about one job, and print what it says."""

    async def asked(client: Client) -> int:
        show(await ask(client), out)
        return 0

    code = with_client(state, asked)
    if code:
        sys.exit(code)


def tell_remembered(state: Path | None, out: Out) -> None:
    """Print the jobs that were detached from here."""
    for each in book(state).jobs():
        out.facts(JobTaken(job=each.job, node=Address.parse(each.node).key))
        out.line(f"{each.job}  {each.node}")


def show(status: JobStatus, out: Out) -> None:
    """Print how far a job is."""
    out.facts(status)
    words = [status.job, status.state.value]
    if status.status is not None:
        words.append(explain(status.status))
    if status.detail:
        words.append(status.detail)
    out.line("  ".join(words))


def with_client(state: Path | None, call: Callable[[Client], Coroutine[Any, Any, int | None]]) -> int:
    """Do something at a node; returns the exit code, also where it fails for a reason of nodes."""

    async def done() -> int:
        async with Client.open(identity_in(state)) as client:
            return await call(client) or 0

    try:
        return asyncio.run(done())
    except KeyboardInterrupt:
        note("interrupted")
        return _outcome.INTERRUPTED
    except LostError as error:
        note(str(error))
        return _outcome.LOST
    except (RejectedError, NotKeptError) as error:
        return _told(error, _outcome.REFUSED)
    except JobLostError as error:
        return _told(error, _outcome.JOB_LOST)
    except NotRunError as error:
        return _told(error, _outcome.NOT_RUN)
    except UntrueError as error:
        return _told(error, _outcome.UNTRUE)
    except PeerError as error:
        return _told(error, _outcome.UNREACHABLE)


def _told(error: PhaseError, code: int) -> int:
    note(str(error))
    return code


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        LostError: it cannot be written.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        name = "stdout" if descriptor == 1 else "stderr"
        raise LostError(f"{name} of the module is lost: {error.strerror or error}") from error


def _whole_input(limits: "Limits") -> bytes:
    """All of the input, which a deterministic job has before it starts."""
    data = sys.stdin.buffer.read(limits.stdin_bytes + 1)
    if len(data) > limits.stdin_bytes:
        raise PhaseError(f"the input has more than {limits.stdin_bytes} bytes, its limit")
    return data


async def standard_input() -> AsyncIterator[bytes]:
    """This process's standard input, as it comes."""
    if stat.S_ISREG(os.fstat(0).st_mode):
        while data := os.read(0, _CHUNK):
            yield data
        return
    loop = asyncio.get_running_loop()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(0, _set, ready)
        except PermissionError:  # what epoll cannot wait for never waits either: /dev/null
            pass
        else:
            try:
                await ready
            finally:
                loop.remove_reader(0)
        data = os.read(0, _CHUNK)
        if not data:
            return
        yield data


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
