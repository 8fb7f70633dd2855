"""Run a job in a worker process and watch it: the parent's side.

Imports stay few (no subprocess, no asyncio, no engine): the worker is started first, and what
the parent still has to read and hash happens while the worker loads its engine. Structs, not
dataclasses: those bring half of the standard library.
"""

import hashlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence

import msgspec

from phase.jobs import location, wire
from phase.jobs.errors import EngineError, JobRefusedError
from phase.jobs.limits import Limits
from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Status, Trapped

#: Seconds a worker may take to load its engine; an emulated board needs most of ten.
STARTUP_SECONDS = 120.0
#: Seconds past the wall limit until the worker is killed: its own clock stops the module at the
#: limit and knows the fuel burnt, the kill is for what the engine cannot interrupt.
GRACE_SECONDS = 0.5
MAX_ARGUMENTS = 1024
MAX_ARGUMENT_BYTES = 128 * 1024
#: The engine's WASI keeps a thread pool as wide as the machine unless told otherwise.
_ENVIRONMENT = {"TOKIO_WORKER_THREADS": "1"}
_MAX_DIAGNOSTICS = 16 * 1024
_MAX_CONTROL = 16 * 1024
_HITS: dict[str, LimitHit] = {
    hit.limit: hit for hit in (LimitHit("fuel"), LimitHit("wall"), LimitHit("memory"), LimitHit("output"))
}
#: sys.path is given as an argument: -I and -S leave only the standard library.
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop()); from phase.jobs.worker import main; main()"


class Job(msgspec.Struct, frozen=True):
    """What to run.

    Args:
        module: WebAssembly, binary format.
        args: arguments after the program name, which is always `module`.
        stdin: all of the input.
        env: the whole environment; nothing is inherited.
        limits: what it may take.
    """

    module: bytes
    args: Sequence[str] = ()
    stdin: bytes = b""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    limits: Limits = msgspec.field(default_factory=Limits)


class Execution(msgspec.Struct, frozen=True):
    """What came out of one job.

    Args:
        status: how it ended.
        stdout: at most `limits.output_bytes` together with stderr, also when it was stopped.
        stderr: likewise.
        fuel_used: None if the worker died before it could say.
        memory_bytes: size of the module's exported memory at its end; None as above.
        started: seconds since the epoch, when the worker was given the job.
        wall_seconds: from then until its end.
        module_sha256: hex.
    """

    status: Status
    stdout: bytes
    stderr: bytes
    fuel_used: int | None
    memory_bytes: int | None
    started: float
    wall_seconds: float
    module_sha256: str


class Worker:
    """A worker process with its engine loading or loaded; runs one job.

    Start one before the job is at hand and it is warm when the job comes. Use as a context
    manager: leaving it kills whatever is left.

    Raises:
        EngineError: there is no engine to load.
    """

    def __init__(self) -> None:
        library = location.library()
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        command = [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, library, package]
        pipes = [os.pipe() for _ in range(5)]
        # Pipe ends move above the worker's five descriptors first, or one dup2 could overwrite the next.
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        ours = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
        moved: list[int] = []
        try:
            import fcntl

            moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in theirs]
            actions = [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(moved)]
            self.pid = os.posix_spawn(sys.executable, command, _ENVIRONMENT, file_actions=actions)
        except OSError as error:
            for end in ours:
                os.close(end)
            raise EngineError(f"cannot start a worker process: {error}") from error
        finally:
            for end in (*theirs, *moved):
                os.close(end)
        self._request, self._stdout, self._diagnostics, self._control, self._stderr = ours
        os.set_blocking(self._request, False)
        self._reaped: int | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the worker if it still lives, and free what it held. May be called twice."""
        if self._reaped is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        for end in (self._request, self._stdout, self._diagnostics, self._control, self._stderr):
            if end >= 0:
                os.close(end)
        self._request = self._stdout = self._diagnostics = self._control = self._stderr = -1

    def run(self, job: Job) -> Execution:
        """Run the one job of this worker, and end the worker.

        Raises:
            JobRefusedError: module, input, arguments or environment are beyond the limits.
            EngineError: the worker did not get as far as the job.
        """
        request = _request(job)
        self._wait_ready()
        started, begun = time.time(), time.monotonic()
        seen = self._watch(request, begun + job.limits.wall_seconds + GRACE_SECONDS, job.limits.output_bytes)
        wall_seconds = time.monotonic() - begun
        signalled = self._finish()
        result = _result(bytes(seen.control))
        fuel_used = memory_bytes = None
        status: Status
        if seen.over:
            status = LimitHit("output")
        elif result is not None:
            status, fuel_used, memory_bytes = result
        elif seen.late:
            status = LimitHit("wall")
        else:
            reason = bytes(seen.diagnostics).decode("utf-8", "replace").strip()[-500:]
            status = LimitHit("wall") if signalled == signal.SIGXCPU else Killed(signalled, reason)
        return Execution(
            status=status,
            stdout=bytes(seen.stdout),
            stderr=bytes(seen.stderr),
            fuel_used=fuel_used,
            memory_bytes=memory_bytes,
            started=started,
            wall_seconds=wall_seconds,
            module_sha256=hashlib.sha256(job.module).hexdigest(),
        )

    def _wait_ready(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if poll.poll(STARTUP_SECONDS * 1000) and os.read(self._control, 1) == b"R":
            return
        poll = select.poll()
        poll.register(self._diagnostics, select.POLLIN)
        said = os.read(self._diagnostics, _MAX_DIAGNOSTICS) if poll.poll(0) else b""
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise EngineError(
            f"worker process {self.pid} did not load its engine: {last or 'no reason given'}",
            hint="Try `python -c 'import wasmtime'` in the same environment",
        )

    def _watch(self, request: bytes, deadline: float, output_bytes: int) -> "_Seen":
        seen = _Seen()
        sinks = {
            self._stdout: seen.stdout,
            self._stderr: seen.stderr,
            self._diagnostics: seen.diagnostics,
            self._control: seen.control,
        }
        poll = select.poll()
        for descriptor in sinks:
            poll.register(descriptor, select.POLLIN)
        poll.register(self._request, select.POLLOUT)
        unsent = memoryview(request)
        while sinks:
            left = deadline - time.monotonic()
            if left <= 0:
                seen.late = True
                break
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor == self._request:
                    try:
                        unsent = unsent[os.write(descriptor, unsent) :]
                    except BrokenPipeError:
                        unsent = memoryview(b"")
                    if not unsent:
                        poll.unregister(descriptor)
                        os.close(descriptor)
                        self._request = -1
                    continue
                part = os.read(descriptor, 1 << 18)
                if not part:
                    poll.unregister(descriptor)
                    del sinks[descriptor]
                sinks.get(descriptor, bytearray()).extend(part)
            # The worker counts too; this is for one that was taken over.
            if len(seen.stdout) + len(seen.stderr) > output_bytes:
                seen.over = True
                left = max(output_bytes - len(seen.stdout), 0)
                del seen.stdout[output_bytes:], seen.stderr[int(left) :]
                break
            del seen.diagnostics[:-_MAX_DIAGNOSTICS]
            if len(seen.control) > _MAX_CONTROL:
                break
        return seen

    def _finish(self) -> int:
        os.kill(self.pid, signal.SIGKILL)  # a no-op for one that has already left
        code = self._reap()
        self.close()
        return -code if code < 0 else 0

    def _reap(self) -> int:
        _, raw = os.waitpid(self.pid, 0)
        self._reaped = os.waitstatus_to_exitcode(raw)
        return self._reaped


class _Seen:
    def __init__(self) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.diagnostics, self.control = bytearray(), bytearray()
        self.over = self.late = False


def execute(job: Job, worker: Worker | None = None) -> Execution:
    """Run a job to its end, whatever that is.

    Args:
        job: what to run.
        worker: a warm one; a new one when left out. Used up either way.

    Raises:
        JobRefusedError: module, input, arguments or environment are beyond the limits.
        EngineError: no engine, or the worker broke before it had the job.
    """
    with worker or Worker() as used:
        return used.run(job)


def _request(job: Job) -> bytes:
    limits = job.limits
    for what, size, most in (
        ("module", len(job.module), limits.module_bytes),
        ("stdin", len(job.stdin), limits.stdin_bytes),
    ):
        if size > most:
            raise JobRefusedError(f"{what} is {size} bytes, the limit is {most}")
    words = ["module", *job.args, *(word for pair in job.env.items() for word in pair)]
    try:
        encoded = [word.encode() for word in words]
    except UnicodeEncodeError as error:
        raise JobRefusedError(f"arguments and environment must be UTF-8: {error}") from error
    if len(words) > MAX_ARGUMENTS or sum(map(len, encoded)) > MAX_ARGUMENT_BYTES:
        raise JobRefusedError(
            f"arguments and environment are {len(words)} words, {sum(map(len, encoded))} bytes; "
            f"the limits are {MAX_ARGUMENTS} words, {MAX_ARGUMENT_BYTES} bytes"
        )
    if any(b"\0" in word for word in encoded) or any(not name or "=" in name for name in job.env):
        raise JobRefusedError("an argument or variable holds NUL, or a variable's name is empty or has '='")
    split = 1 + len(job.args)
    wall_ms = max(int(limits.wall_seconds * 1000), 1)
    numbers = (limits.fuel, wall_ms, limits.memory_bytes, limits.output_bytes)
    return wire.pack(
        job.module,
        job.stdin,
        wire.pack(*encoded[:split]),
        wire.pack(*encoded[split:]),
        " ".join(map(str, numbers)).encode(),
    )


def _result(frame: bytes) -> tuple[Status, int, int] | None:
    """Read the worker's last words; None if they are not complete. Never trusts their form."""
    try:
        kind, detail, burnt, peak = (part.decode() for part in wire.unpack(frame))
        status: Status
        if kind == "exited":
            status = Exited(int(detail))
        elif kind == "trapped":
            status = Trapped(_printable(detail))
        elif kind == "rejected":
            status = Rejected(_printable(detail))
        elif kind == "limit" and (hit := _HITS.get(detail)):
            status = hit
        else:
            return None
        return status, int(burnt), int(peak)
    except ValueError:
        return None


def _printable(text: str) -> str:
    """Engine messages quote names from the module; those must not steer anyone's terminal."""
    return "".join(c if c.isprintable() else " " for c in text)[:500]
