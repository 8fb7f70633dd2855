"""The process a job runs in: started by `phase.jobs.runner`, runs one module, dies.

    fd 0  the module's stdin, when it comes as a stream
    fd 1  the module's stdout          fd 4  the module's stderr
    fd 2  what goes wrong in the worker itself
    fd 3  messages to the parent (`phase.jobs.wire`): READY, COMPILE, RUNNING, WANT, DONE
    fd 5  the job, one frame, then end of file

It starts with an empty environment, `-I -S`, and imports next to nothing. Once the engine is
loaded it gives up root, and all that a module could misuse if it broke out of the engine: new files,
processes, privileges.
"""

import _thread
import errno
import os
import sys
from collections.abc import Callable
from ctypes import c_void_p

from phase.jobs import binary, component, protect, text, traps, wasip2, wire
from phase.jobs import grant as grants
from phase.jobs.determined import World
from phase.jobs.engine import Engine, InvalidModuleError, Stopped, TooMuchMemoryError
from phase.jobs.filed import Files, FullError
from phase.jobs.grant import Grant
from phase.jobs.host import Host, More

#: A module that imports more functions of WASI than there are does not link.
_MOST_KEPT = 64
STDIN, STDOUT, DIAGNOSTICS, CONTROL, STDERR, REQUEST = range(6)


class _Output:
    """Counts stdout and stderr together.

    Args:
        limit: bytes of both.
        over: called when the module prints more; does not return.
    """

    def __init__(self, limit: int, over: Callable[[], None]) -> None:
        self._left = limit
        self._over = over

    def to(self, descriptor: int, data: bytes) -> int:
        fits = data[: self._left]
        try:
            wire.write_all(descriptor, fits)
        except OSError as error:
            return -(error.errno or errno.EIO)
        self._left -= len(fits)
        if len(fits) < len(data):
            self._over()
        return len(data)


class _Run:
    """One job, and the one message that says how it ended."""

    def __init__(self, engine: Engine, fields: list[bytes], grant: Grant) -> None:
        self._engine, self._grant = engine, grant
        self._files = Files(grant, fields.pop())
        self._module, self._stdin, argv, env, numbers, self._held = fields
        self._program: Engine | wasip2.Component = engine
        self._argv, pairs = wire.unpack(argv), wire.unpack(env)
        self._env = list(zip(pairs[::2], pairs[1::2], strict=True))
        self._fuel, self._wall_ms, self._memory, output, self._compile, self._streamed, self._keep, seed = (
            map(int, numbers.split())
        )
        self._world: More | None = None
        if seed >= 0:
            self._world = lambda memory, trap: World(seed, memory, trap).functions()
        self._output, self._output_bytes = _Output(output, self._printed_too_much), output
        self._linked = self._started = False
        self._said = _thread.allocate_lock()

    def run(self) -> None:
        """Run it, and end the process."""
        _thread.start_new_thread(self._ring, ())
        protect.limit(wall_seconds=self._wall_ms // 1000 + 1, grant=self._grant)
        status, exact = self._status()
        if status[0] == "exited" and not self._files.bring(_bring, self._output_bytes):
            status = ("limit", "output")
        burnt = (self._fuel - self._engine.fuel_left() if self._linked else 0) if exact else None
        self._end(status, burnt, self._tables())

    def _tables(self) -> int | None:
        return self._program.table_bytes() if self._started else self._engine.fixed_tables

    def _printed_too_much(self) -> None:
        self._end(("limit", "output"), None, self._tables())

    def _end(self, status: tuple[str, str], burnt: int | None, tables: int | None) -> None:
        self._said.acquire()  # for ever: there is one last message
        memory = None if tables is None else self._engine.memories.used + tables + self._files.used()
        numbers = ("" if number is None else str(number) for number in (burnt, memory))
        wire.send(CONTROL, wire.DONE, *(part.encode()[:2000] for part in (*status, *numbers)))
        # No interpreter shutdown: nothing here needs it, and freeing the engine takes time.
        os._exit(0)

    def _ring(self) -> None:
        # A lock that is never released is the cheapest clock without an import.
        alarm = _thread.allocate_lock()
        alarm.acquire()
        alarm.acquire(timeout=self._wall_ms / 1000)
        # The process ends while the module runs: checks in its code would make compiling a fifth slower.
        # The module may be changing its tables just now, so their size is not read.
        self._end(("limit", "wall"), None, self._engine.fixed_tables)

    def _status(self) -> tuple[tuple[str, str], bool]:
        """Run the module: how it ended, and whether the engine knows the fuel it burnt."""
        try:
            self._prepare()
        except FullError:
            return ("limit", "memory"), True
        except InvalidModuleError as error:
            text = str(error)
            if "Cannot allocate memory" in text:
                text = wire.too_large(self._allowed)
            return ("rejected", text), True
        except TooMuchMemoryError:
            return ("limit", "memory"), True
        except MemoryError:
            return ("rejected", wire.too_large(self._allowed)), True
        try:
            self._start()
        except InvalidModuleError as error:
            return ("rejected", str(error)), True
        except TooMuchMemoryError:
            return ("limit", "memory"), True
        except Stopped as stop:
            return self._stopped(stop)
        return ("exited", "0"), True

    def _prepare(self) -> None:
        """Everything up to the module's first instruction."""
        engine, output = self._engine, self._output
        restored = self._restored()
        shape, compiled = restored or self._compiled()
        self._files.put()
        engine.wasi(
            argv=self._argv,
            env=self._env,
            stdin=None if self._streamed else self._stdin,
            stdout=lambda data: output.to(STDOUT, data),
            stderr=lambda data: output.to(STDERR, data),
            directories=self._files.directories(),
        )
        # Kept: a collection would free its functions, which the engine still calls.
        if not isinstance(shape, component.Parts):
            self._host = Host(engine, shape.imports, _want if self._streamed else None, self._world)
        elif self._streamed and shape.reads:
            wire.send(CONTROL, wire.AHEAD)
        memory = self._memory - self._grant.memory_bytes
        protect.limit_memory(memory, freed=restored is None)
        self._link(shape, compiled, memory)
        self._linked = True

    def _link(self, shape: binary.Shape, compiled: c_void_p, memory: int) -> None:
        if isinstance(shape, component.Parts):
            if self._world is not None:
                raise InvalidModuleError(
                    "a component cannot be deterministic: its clocks and random bytes cannot be given; "
                    "build it as a module for WASI preview 1"
                )
            self._program = wasip2.Component(self._engine, shape, compiled)
            self._program.link(fuel=self._fuel, memory_bytes=memory)
        else:
            self._engine.link(shape, compiled, fuel=self._fuel, memory_bytes=memory)

    def _restored(self) -> tuple[binary.Shape, c_void_p] | None:
        """The module as it was compiled for an earlier job, if the parent has kept that."""
        if not self._held:
            return None
        try:
            packed, code = wire.unpack(self._held)
            shape = component.unpacked(packed)
        except ValueError:
            return None
        compiled = self._engine.restore(code, shape.kind)
        return None if compiled is None else (shape, compiled)

    def _compiled(self) -> tuple[binary.Shape, c_void_p]:
        self._limit_compiler(binary.assembler_bytes(len(self._module), self._compile))
        shape = _read(text.binary(self._engine, self._module))
        _check(shape)
        self._limit_compiler(binary.compile_bytes(shape, self._compile))
        if binary.least_bytes(shape) > self._allowed:
            raise MemoryError
        compiled = self._engine.compile(shape.module, shape.kind)
        if self._keep and len(shape.imports) <= _MOST_KEPT:
            kept = wire.pack(shape.packed(), self._engine.serialize(compiled, shape.kind))
            if len(kept) <= self._keep:
                for at in range(0, len(kept), wire.PART_BYTES):
                    wire.send(CONTROL, wire.KEEP, kept[at : at + wire.PART_BYTES])
                wire.send(CONTROL, wire.KEEP, b"")
        return shape, compiled

    def _limit_compiler(self, allowed: int) -> None:
        self._allowed = allowed
        wire.send(CONTROL, wire.COMPILE, str(allowed).encode())
        protect.limit_compiler(allowed)

    def _start(self) -> None:
        wire.send(CONTROL, wire.RUNNING)
        self._program.instantiate()
        self._started = True
        self._program.start()

    def _stopped(self, stop: Stopped) -> tuple[tuple[str, str], bool]:
        if stop.code is not None:
            return ("exited", str(stop.code)), True
        if stop.trap == traps.OUT_OF_FUEL:
            return ("limit", "fuel"), True
        # The engine counts fuel in a register, and stores the count when a function is called or left. Of
        # the traps only `unreachable` stores it: after the others the count is not known.
        if stop.trap is None:
            text = str(stop)
            if "GC heap out of memory" in text:
                return ("limit", "memory"), False
            return ("trapped", "uncaught exception" if text == "thrown Wasm exception" else text), False
        return ("trapped", traps.name(stop.trap)), stop.trap == traps.UNREACHABLE


def _read(given: bytes) -> binary.Shape:
    if not component.is_one(given):
        return binary.read(given)
    try:
        return component.read(given)
    except ValueError as error:
        raise InvalidModuleError(f"it is a component that cannot be read: {error}") from None


def _check(shape: binary.Shape) -> None:
    """Refuse a module by its sections, before it is compiled, which takes a minute for a large one."""
    if shape.start is None and shape.kind == wasip2.KIND:
        raise InvalidModuleError("component exports no wasi:cli/run of WASI 0.2; only commands can be run")
    if shape.start is None:
        raise InvalidModuleError("module exports no function _start; only WASI commands can be run")
    if shape.shared:
        raise InvalidModuleError("its memory is shared between threads; a job has one thread")
    for what, count, most in (
        ("tables", shape.tables, binary.MAX_TABLES),
        ("linear memories", shape.memories, binary.MAX_MEMORIES),
    ):
        if count > most:
            raise InvalidModuleError(f"{shape.kind} has {count} {what}; the limit is {most}")


def main() -> None:
    """Run the job that arrives. Never returns."""
    os.closerange(REQUEST + 1, 1 << 20)
    parent = os.getppid()
    serve(Engine(sys.argv[1]), parent, grants.read(sys.argv[2:]))


def serve(engine: Engine, parent: int, grant: Grant, *, apart: bool = False) -> None:
    """Close the cage, and run the job that arrives. Never returns.

    Args:
        engine: loaded; nothing has run in it.
        parent: process that this one must not outlive.
        grant: the files that the job may have.
        apart: whether this process is in an empty network namespace already.
    """
    wire.send(CONTROL, wire.READY, *(_list(texts) for texts in protect.give_up(parent, grant, apart=apart)))
    fields = wire.unpack(wire.read_all(REQUEST))
    os.close(REQUEST)
    _Run(engine, fields, grant).run()


def _list(texts: list[str]) -> bytes:
    return wire.pack(*(text.encode() for text in texts))


def _bring(number: int, part: bytes) -> None:
    wire.send(CONTROL, wire.OUTPUT, str(number).encode(), part)


def _want(read: int, most: int) -> None:
    wire.send(CONTROL, wire.WANT, str(read).encode(), str(most).encode())
