"""Runs a component (WASI 0.2) in the engine of a job; `phase.jobs.engine` runs modules."""

import ctypes
from ctypes import c_char_p, c_size_t, c_void_p

from phase.jobs import traps
from phase.jobs.binary import Limits
from phase.jobs.component import Parts
from phase.jobs.engine import ROOM, UNION, Engine, InvalidModuleError, Stopped

KIND = "component"
#: Limits for the tables and core instances of a component; a usual one has two and four.
MAX_TABLES = MAX_INSTANCES = 64
#: WASMTIME_COMPONENT_RESULT (component/val.h): what a `run` returns.
_RESULT = 19
#: Bytes set aside for a wasmtime_component_val_t (40 in this version).
_VALUE = 128
_ENDLESS = 2**32 - 1
#: How the engine's messages begin when it has not linked or called the component.
_UNLINKED = ("component imports", "resource limit exceeded", "expected ")


class Component:
    """A component in the place of a module.

    Args:
        engine: with its WASI world.
        parts: of the component.
        compiled: the component.
    """

    def __init__(self, engine: Engine, parts: Parts, compiled: c_void_p) -> None:
        self._engine, self._parts, self._compiled = engine, parts, compiled
        self._instance = ctypes.create_string_buffer(ROOM)

    def link(self, *, fuel: int, memory_bytes: int) -> None:
        """Give it the functions of WASI 0.2, and limit it. No code of it runs.

        Args:
            fuel: limit, in units of the engine.
            memory_bytes: limit for its memories, tables and objects together.

        Raises:
            InvalidModuleError: it is not a command.
            TooMuchMemoryError: its tables are over the limit.
        """
        engine, known = self._engine, self._parts.known
        self._linker = c_void_p(engine.call("wasmtime_component_linker_new", engine.engine))
        engine.check(engine.call("wasmtime_component_linker_add_wasip2", self._linker))
        # The engine finds each later 0.2, too.
        self._run = self._index(b"run", self._index(b"wasi:cli/run@0.2.0", c_void_p()))
        unknown: list[Limits] = [(self._parts.largest, _ENDLESS)] * MAX_TABLES
        tables = unknown if known is None else known
        if len(tables) > MAX_TABLES:
            raise InvalidModuleError(f"component has {len(tables)} tables; the limit is {MAX_TABLES}")
        self._fuel = fuel
        engine.limit(
            tables,
            fuel=fuel,
            memory_bytes=memory_bytes,
            most_tables=MAX_TABLES,
            instances=MAX_INSTANCES,
        )

    def _index(self, name: bytes, within: c_void_p) -> c_void_p:
        size = c_size_t(len(name))
        found = self._engine.call(
            "wasmtime_component_get_export_index", self._compiled, within, c_char_p(name), size
        )
        if not found:
            raise InvalidModuleError(
                "component exports no wasi:cli/run of WASI 0.2; only commands can be run"
            )
        return c_void_p(found)

    def instantiate(self) -> None:
        """Make the instance; start functions of its modules run here.

        Raises:
            InvalidModuleError: it imports what there is not.
            TooMuchMemoryError: its memories start over the limit.
            Stopped: a start function trapped, or a segment does not fit.
        """
        engine = self._engine
        failed = engine.call(
            "wasmtime_component_linker_instantiate",
            self._linker,
            engine.context,
            self._compiled,
            self._instance,
        )
        self._named(failed)

    def start(self) -> None:
        """Call `run`.

        Raises:
            Stopped: it trapped, failed, or called `exit`.
        """
        engine = self._engine
        function, result = ctypes.create_string_buffer(ROOM), ctypes.create_string_buffer(_VALUE)
        found = engine.call(
            "wasmtime_component_instance_get_func", self._instance, engine.context, self._run, function
        )
        if not found:
            raise InvalidModuleError("component's wasi:cli/run is not a function")
        failed = engine.call(
            "wasmtime_component_func_call",
            function,
            engine.context,
            c_void_p(),
            c_size_t(0),
            result,
            c_size_t(1),
        )
        self._named(failed)
        if result.raw[0] != _RESULT:
            raise Stopped("its run returned something else than a result")
        if not result.raw[UNION]:
            raise Stopped("exited", code=1)

    def table_bytes(self) -> int | None:
        """The size of its tables, bytes; None if it is not known."""
        return self._engine.fixed_tables

    def _named(self, failed: int) -> None:
        """Raise the error, if it is one. The engine has no number for a trap here, only its sentence."""
        try:
            self._engine.check_made(failed)
        except Stopped as stop:
            text = str(stop)
            # Start functions of some of its modules may have run before another module met a limit.
            idle = self._engine.fuel_left() == self._fuel
            if stop.code is None and idle and text.startswith(_UNLINKED):
                raise InvalidModuleError(text) from None
            for number in range(len(traps.TRAPS)):
                if stop.code is None and text == self._engine.trap_text(number):
                    raise Stopped(text, trap=number) from None
            raise
