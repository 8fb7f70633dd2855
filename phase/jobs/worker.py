"""The process a job runs in: started by `phase.jobs.runner`, runs one module, dies.

    fd 0  the job, one frame, then end of file
    fd 1  the module's stdout          fd 4  the module's stderr
    fd 2  what goes wrong in the worker itself
    fd 3  `READY` when the engine is loaded, later one frame with the outcome

It starts with an empty environment, `-I -S`, and imports next to nothing. Once the engine is
loaded it gives up root, and what a module that broke out of the engine would want: new files,
processes, privileges.
"""

import _thread
import ctypes
import errno
import os
import resource
import sys

from phase.jobs import wire
from phase.jobs.engine import INTERRUPT, OUT_OF_FUEL, TRAPS, Engine, InvalidModuleError, Stopped

READY = b"R"
STDIN, STDOUT, DIAGNOSTICS, CONTROL, STDERR = range(5)
#: The user nobody everywhere.
_NOBODY = 65_534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SIGKILL = 9
_MIB = 1 << 20
#: Private writable memory beyond the module's own: engine, Python, compiled code, compiler.
_OVERHEAD = 512 * _MIB
#: Threads of all workers together, once they gave up root: the engine's WASI needs two or three each.
_PROCESSES = 512


class _Output:
    """Counts stdout and stderr together, and stops the module at the limit."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._left = limit
        self.over = False

    def to(self, descriptor: int, data: bytes) -> int:
        fits = data[: self._left]
        try:
            wire.write_all(descriptor, fits)
        except OSError as error:
            return -(error.errno or errno.EIO)
        self._left -= len(fits)
        if len(fits) < len(data):
            self.over = True
            self._engine.interrupt()
            return -errno.EFBIG
        return len(data)


def main() -> None:
    """Run the job that arrives on descriptor 0. Never returns."""
    os.closerange(STDERR + 1, 1 << 20)
    parent = os.getppid()
    engine = Engine(sys.argv[1])
    _give_up(parent)
    os.write(CONTROL, READY)
    fields = wire.unpack(wire.read_all(STDIN))
    wire.write_all(CONTROL, wire.pack(*_run(engine, fields)))
    # No interpreter shutdown: nothing here needs it, and freeing the engine takes time.
    os._exit(0)


def _run(engine: Engine, fields: list[bytes]) -> tuple[bytes, ...]:
    module, stdin, argv, env, numbers = fields
    fuel, wall_ms, memory, output_bytes = (int(number) for number in numbers.split())
    late = False

    def ring() -> None:
        nonlocal late
        # A lock nobody releases is the cheapest clock that needs no import.
        alarm = _thread.allocate_lock()
        alarm.acquire()
        alarm.acquire(timeout=wall_ms / 1000)
        late = True
        engine.interrupt()

    _thread.start_new_thread(ring, ())
    _limit(memory_bytes=memory, wall_seconds=wall_ms // 1000 + 1, module_bytes=len(module))
    output = _Output(engine, output_bytes)
    status = ("exited", "0")
    try:
        engine.limit(fuel=fuel, memory_bytes=memory)
        pairs = wire.unpack(env)
        engine.wasi(
            argv=wire.unpack(argv),
            env=list(zip(pairs[::2], pairs[1::2], strict=True)),
            stdin=stdin,
            stdout=lambda data: output.to(STDOUT, data),
            stderr=lambda data: output.to(STDERR, data),
        )
        engine.load(module)
        engine.start()
    except InvalidModuleError as error:
        text = str(error)
        beyond = "exceeds memory limits" in text
        status = ("limit", "memory") if beyond else ("rejected", text)
    except Stopped as stop:
        if stop.code is not None:
            status = ("exited", str(stop.code))
        elif stop.trap == OUT_OF_FUEL:
            status = ("limit", "fuel")
        elif stop.trap == INTERRUPT and late:
            status = ("limit", "wall")
        else:
            known = stop.trap is not None and stop.trap < len(TRAPS)
            status = ("trapped", TRAPS[stop.trap] if known and stop.trap is not None else str(stop))
    if output.over:
        status = ("limit", "output")
    burnt = fuel - engine.fuel_left()
    return tuple(part.encode()[:2000] for part in (*status, str(burnt), str(engine.memory_bytes())))


def _give_up(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0), (_PR_SET_PDEATHSIG, _SIGKILL)):
        # Changing the user clears the death signal, so this comes after.
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if os.getppid() != parent:
        os._exit(1)


def _limit(*, memory_bytes: int, wall_seconds: int, module_bytes: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + wall_seconds + 2
    # RLIMIT_DATA counts private writable pages, so the engine may still reserve address space
    # for fast bounds checks, which RLIMIT_AS would forbid. A memory that moves exists twice.
    data = _OVERHEAD + 2 * memory_bytes + 32 * module_bytes
    for kind, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        # Counts every process of this user, so it is only meant for the one nobody else uses.
        *(((resource.RLIMIT_NPROC, _PROCESSES),) if os.geteuid() == _NOBODY else ()),
    ):
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
