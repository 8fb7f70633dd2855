"""A job, what comes of it, and the form in which a worker reads it."""

import os
from collections.abc import Mapping, Sequence

import msgspec

from phase.errors import printable
from phase.jobs import grant as grants
from phase.jobs import wire
from phase.jobs.errors import JobRefusedError
from phase.jobs.flow import Content
from phase.jobs.grant import Grant
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.status import Status

MAX_ARGUMENTS = 1024
MAX_ARGUMENT_BYTES = 128 * 1024
#: Bytes that the file system in memory takes for itself.
_EMPTY_BYTES = 1 << 16
_MAX_NAME = 255


class Directory(msgspec.Struct, frozen=True):
    """A directory of this machine for a job.

    Args:
        host: its path.
        guest: the path by which the module finds it.
        writable: whether the module may change what is there.
    """

    host: str
    guest: str
    writable: bool = True


class Job(msgspec.Struct, frozen=True):
    """A job.

    Args:
        module: WebAssembly, binary format.
        args: arguments after the program name, which is always `module`.
        stdin: the whole input, if it is not a stream.
        env: the whole environment; nothing is inherited.
        limits: of the job.
        seed: makes it a deterministic job: its random bytes follow from this number, its clocks tell the
            time of a world of its own, and all of its input is `stdin`. None for any other job.
        inputs: files that it finds in `/input`, by their names, and may not change.
        outputs: names of the files in `/output` that are brought back once it has exited.
        directories: of this machine, that it may use.
    """

    module: bytes
    args: Sequence[str] = ()
    stdin: bytes = b""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    limits: Limits = msgspec.field(default_factory=Limits)
    seed: int | None = None
    inputs: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    outputs: Sequence[str] = ()
    directories: Sequence[Directory] = ()


class Execution(msgspec.Struct, frozen=True):
    """The result of one job.

    Args:
        status: how it ended.
        stdout: at most `limits.output_bytes` together with stderr, also when it was stopped; empty if it
            went to a stream.
        stderr: likewise.
        fuel_used: None if not known: the engine counts in a register, and loses the count when the module
            traps or is interrupted.
        memory_bytes: peak of linear memories, tables and the garbage collector's heap, and its files in
            memory at its end, together; None if the worker died before it could report it.
        started: seconds since the epoch, when the worker got the job.
        wall_seconds: from then until its end.
        module_sha256: hex.
        input: the input of the job: all of `Job.stdin`, or the part of a stream that the module asked for.
        output: the bytes of stdout that the sink has taken.
        errors: the same for stderr.
        cage: layers of the worker's cage: `user` of its own, `namespaces`, `mounts`, `landlock`,
            `filter`, `cgroup`.
        missing: protections that the worker could not have, a sentence each.
        files: the output files that it has left, by their names.
        undelivered: errors of stdin before its end, and of stdout and stderr, by name.
    """

    status: Status
    stdout: bytes
    stderr: bytes
    fuel_used: int | None
    memory_bytes: int | None
    started: float
    wall_seconds: float
    module_sha256: str
    input: Content
    output: Content
    errors: Content
    cage: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    files: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    undelivered: Mapping[str, OSError] = msgspec.field(default_factory=dict)


def request(job: Job, held: bytes, keep: int, *, streamed: bool) -> bytes:
    """The job as its worker reads it.

    Args:
        job: the job.
        held: the module, compiled; or nothing.
        keep: bytes of the compiled module that the caller keeps; 0 for none.
        streamed: whether its input comes as a stream.

    Raises:
        JobRefusedError: module, input, arguments or environment are beyond the limits.
    """
    limits = job.limits
    if job.seed is not None and (streamed or not 0 <= job.seed <= MAX_INTEGER):
        raise JobRefusedError(
            f"a deterministic job has a seed from 0 to {MAX_INTEGER}, and all of its input before it starts"
        )
    for what, size, most in (
        ("module", len(job.module), limits.module_bytes),
        ("stdin", len(job.stdin), limits.stdin_bytes),
    ):
        if size > most:
            raise JobRefusedError(f"{what} has {size} bytes; the limit is {most}")
    words = ["module", *job.args, *(word for pair in job.env.items() for word in pair)]
    try:
        encoded = [word.encode() for word in words]
    except UnicodeEncodeError as error:
        raise JobRefusedError(f"arguments and environment must be UTF-8: {error}") from error
    if len(words) > MAX_ARGUMENTS or sum(map(len, encoded)) > MAX_ARGUMENT_BYTES:
        raise JobRefusedError(
            f"arguments and environment have {len(words)} words and {sum(map(len, encoded))} bytes; "
            f"the limits are {MAX_ARGUMENTS} words and {MAX_ARGUMENT_BYTES} bytes"
        )
    if any(b"\0" in word for word in encoded) or any(not name or "=" in name for name in job.env):
        raise JobRefusedError("an argument or variable holds NUL, or a variable's name is empty or has '='")
    split = 1 + len(job.args)
    wall_ms = max(int(limits.wall_seconds * 1000), 1)
    numbers = (
        limits.fuel,
        wall_ms,
        limits.memory_bytes,
        limits.output_bytes,
        limits.compile_bytes,
        int(streamed),
        keep,
        -1 if job.seed is None else job.seed,
    )
    return wire.pack(
        job.module,
        b"" if streamed else job.stdin,
        wire.pack(*encoded[:split]),
        wire.pack(*encoded[split:]),
        " ".join(map(str, numbers)).encode(),
        held,
        _files(job),
    )


def grant_of(job: Job) -> Grant:
    """The files that a job needs.

    Raises:
        JobRefusedError: it may not have them: a name cannot be a file's, a directory is missing, or its
            files in memory are larger than its memory.
    """
    if not (job.inputs or job.outputs or job.directories or job.limits.scratch_bytes):
        return Grant()
    _check_names(job)
    needed = sum(grants.pages(len(data)) for data in job.inputs.values()) + job.limits.scratch_bytes
    needed += job.limits.output_bytes if job.outputs else 0
    needed += _EMPTY_BYTES if job.inputs or job.outputs or job.limits.scratch_bytes else 0
    memory = job.limits.memory_bytes
    if needed > memory:
        raise JobRefusedError(
            f"its files in memory may take {needed} bytes, which count as memory; the limit is {memory}",
            hint="Give it more memory, or less room for output and scratch files",
        )
    return Grant(needed, tuple(_directory(each) for each in job.directories))


def _directory(given: Directory) -> tuple[str, bool]:
    path = os.path.realpath(given.host)
    if not os.path.isdir(path):
        raise JobRefusedError(f"{printable(given.host)} is not a directory")
    return path, given.writable


def _check_names(job: Job) -> None:
    for what, names, most in (
        ("input", job.inputs, grants.MAX_FILES),
        ("output", job.outputs, grants.MAX_FILES),
        ("directory", [each.guest for each in job.directories], grants.MAX_DIRECTORIES),
    ):
        if len(names) > most or len(set(names)) != len(names):
            raise JobRefusedError(f"the names of {what} files are more than {most}, or one comes twice")
    for name in (*job.inputs, *job.outputs):
        if "/" in name or name in ("", ".", "..") or not _plain(name, _MAX_NAME):
            raise JobRefusedError(f"{printable(name)!r} cannot be the name of a file of a job")
    for each in job.directories:
        if not each.guest or not _plain(each.guest, 4 * _MAX_NAME) or not _plain(each.host, 1 << 12):
            raise JobRefusedError(f"{printable(each.guest)!r} cannot be the name of a directory of a job")
    if job.seed is not None and job.directories:
        raise JobRefusedError("a deterministic job cannot have directories of this machine")
    if (total := sum(map(len, job.inputs.values()))) > job.limits.stdin_bytes:
        raise JobRefusedError(f"its input files have {total} bytes; the limit is {job.limits.stdin_bytes}")


def _plain(name: str, most: int) -> bool:
    """Whether a name is text that the kernel takes."""
    try:
        return len(name.encode()) <= most and "\0" not in name
    except UnicodeEncodeError:
        return False


def _files(job: Job) -> bytes:
    inputs = (part for name, data in job.inputs.items() for part in (name.encode(), data))
    return wire.pack(
        wire.pack(*(each.guest.encode() for each in job.directories)),
        wire.pack(*inputs),
        wire.pack(*(name.encode() for name in job.outputs)),
    )
