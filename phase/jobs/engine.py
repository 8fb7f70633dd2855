"""The part of the wasmtime C API that one job needs; only the worker imports it.

`import wasmtime` declares the whole C API, some two thousand ctypes prototypes, before the first
call: 120 ms on a PC, seconds under emulation. A worker runs one module once and calls about
forty functions, so it declares those against the same library from the same wheel.
The structures here and in `phase.jobs.memory` follow wasm.h, wasi.h and wasmtime.h of `VERSION`
(documented at docs.wasmtime.dev/c-api); the runner refuses any other version.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

from phase.jobs import settings
from phase.jobs.binary import MAX_MEMORIES, MAX_TABLES, Limits, Shape
from phase.jobs.location import VERSION as VERSION
from phase.jobs.memory import EXCEEDED, Memories

#: WASMTIME_EXTERN_FUNC and WASMTIME_EXTERN_TABLE.
FUNC, _TABLE = 0, 2
#: Bytes set aside for a wasmtime_extern_t or wasmtime_instance_t (32 and 16 in this version).
ROOM = 64
#: Where a wasmtime_extern_t's union starts, after its kind.
UNION = 8
#: Bytes of one element of a table.
_ELEMENT = 8
#: What the functions that are called here return.
_RESULTS: dict[str, type | None] = {
    "wasi_config_inherit_stdin": None,
    "wasi_config_new": c_void_p,
    "wasi_config_preopen_dir": c_bool,
    "wasi_config_set_argv": c_bool,
    "wasi_config_set_env": c_bool,
    "wasi_config_set_stderr_custom": None,
    "wasi_config_set_stdin_bytes": None,
    "wasi_config_set_stdout_custom": None,
    "wasm_byte_vec_delete": None,
    "wasm_byte_vec_new": None,
    "wasm_config_new": c_void_p,
    "wasm_engine_new_with_config": c_void_p,
    "wasm_exporttype_type": c_void_p,
    "wasm_externtype_as_functype": c_void_p,
    "wasm_externtype_as_tabletype": c_void_p,
    "wasm_functype_new": c_void_p,
    "wasm_functype_params": c_void_p,
    "wasm_functype_results": c_void_p,
    "wasm_tabletype_limits": c_void_p,
    "wasm_trap_message": None,
    "wasm_valtype_new": c_void_p,
    "wasm_valtype_vec_new": None,
    "wasmtime_caller_export_get": c_bool,
    "wasmtime_component_deserialize": c_void_p,
    "wasmtime_component_func_call": c_void_p,
    "wasmtime_component_get_export_index": c_void_p,
    "wasmtime_component_instance_get_func": c_bool,
    "wasmtime_component_linker_add_wasip2": c_void_p,
    "wasmtime_component_linker_instantiate": c_void_p,
    "wasmtime_component_linker_new": c_void_p,
    "wasmtime_component_new": c_void_p,
    "wasmtime_component_serialize": c_void_p,
    "wasmtime_config_host_memory_creator_set": None,
    "wasmtime_context_get_fuel": c_void_p,
    "wasmtime_context_set_fuel": c_void_p,
    "wasmtime_context_set_wasi": c_void_p,
    "wasmtime_error_delete": None,
    "wasmtime_error_exit_status": c_bool,
    "wasmtime_error_message": None,
    "wasmtime_error_new": c_void_p,
    "wasmtime_func_call": c_void_p,
    "wasmtime_func_call_unchecked": c_void_p,
    "wasmtime_instance_export_get": c_bool,
    "wasmtime_instance_pre_instantiate": c_void_p,
    "wasmtime_linker_allow_shadowing": None,
    "wasmtime_linker_define_func_unchecked": c_void_p,
    "wasmtime_linker_define_wasi": c_void_p,
    "wasmtime_linker_instantiate": c_void_p,
    "wasmtime_linker_instantiate_pre": c_void_p,
    "wasmtime_linker_new": c_void_p,
    "wasmtime_memory_data": c_void_p,
    "wasmtime_memory_data_size": c_size_t,
    "wasmtime_module_deserialize": c_void_p,
    "wasmtime_module_exports": None,
    "wasmtime_module_new": c_void_p,
    "wasmtime_module_serialize": c_void_p,
    "wasmtime_store_context": c_void_p,
    "wasmtime_store_limiter": None,
    "wasmtime_store_new": c_void_p,
    "wasmtime_table_size": c_uint64,
    "wasmtime_trap_code": c_bool,
    "wasmtime_trap_new": c_void_p,
    "wasmtime_trap_new_code": c_void_p,
    "wasmtime_wat2wasm": c_void_p,
    **{f"wasmtime_config_{name}_set": None for name, _ in (*settings.ALWAYS, *settings.NARROW)},
}
#: Types of arrays that every job makes; each is a class, which is found again while somebody has it.
_ARRAYS = [
    kind * count
    for kind, counts in ((c_void_p, 5), (c_char_p, 5), (ctypes.c_uint32, 7), (c_uint64, 9))
    for count in range(counts)
]
#: A table that may grow without end gets this part of the job's memory to grow into.
_GROWTH = 16

_Write = ctypes.CFUNCTYPE(ctypes.c_ssize_t, c_void_p, c_void_p, c_size_t)
_Finalizer = ctypes.CFUNCTYPE(None, c_void_p)


class Bytes(ctypes.Structure):
    """wasm_byte_vec_t, and every other vector of the C API."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))


class InvalidModuleError(Exception):
    """The bytes are not a module, or it cannot be linked with WASI preview 1. It did not run."""


class TooMuchMemoryError(Exception):
    """The module starts with more memory than it may have. It did not run."""


class Stopped(Exception):  # a trap is an outcome, not an error of ours
    """The module did not return from `_start`.

    Args:
        message: of the engine, one line.
        code: the argument of proc_exit, if it was called.
        trap: index into `phase.jobs.traps.TRAPS`, if the engine classified it.
    """

    def __init__(self, message: str, *, code: int | None = None, trap: int | None = None) -> None:
        self.code = code
        self.trap = trap
        super().__init__(message)


class Engine:
    """One engine with one store, for one job; freed with the process.

    Args:
        library: path of wasmtime's shared library.
    """

    def __init__(self, library: str) -> None:
        self._dll = ctypes.CDLL(library)
        self._keep: list[object] = []
        self.memories = Memories(lambda text: self.call("wasmtime_error_new", c_char_p(text.encode())))
        config = self.call("wasm_config_new")
        for name, wanted in settings.ALWAYS:
            self.call(f"wasmtime_config_{name}_set", c_void_p(config), c_bool(wanted))
        for name, number in settings.NARROW if settings.narrow() else ():
            self.call(f"wasmtime_config_{name}_set", c_void_p(config), c_uint64(number))
        self.call("wasmtime_config_host_memory_creator_set", c_void_p(config), byref(self.memories.creator))
        self.engine = c_void_p(self.call("wasm_engine_new_with_config", c_void_p(config)))
        self._store = c_void_p(self.call("wasmtime_store_new", self.engine, c_void_p(), c_void_p()))
        self.context = c_void_p(self.call("wasmtime_store_context", self._store))
        self.linker = c_void_p(self.call("wasmtime_linker_new", self.engine))
        self._instance = ctypes.create_string_buffer(ROOM)
        self._tables: list[bytes] = []
        self._ready = c_void_p()
        #: Bytes of the module's tables, if none of them can grow; None if one can.
        self.fixed_tables: int | None = 0
        #: The argument of proc_exit, once it was called; it does not return.
        self.exit_code: int | None = None
        self.check(self.call("wasmtime_linker_define_wasi", self.linker))
        self.call("wasmtime_linker_allow_shadowing", self.linker, c_bool(True))
        #: The reader of a job's input (`phase.jobs.host`), if it is compiled already.
        self.reader: c_void_p | None = None

    def call(self, name: str, *args: object) -> int:
        """Call a function of the C API; returns its result, 0 for a null pointer."""
        function, result = getattr(self._dll, name), _RESULTS[name]
        if function.restype is not result:
            function.restype = result
        value = function(*args)
        return value or 0

    def prepare(self) -> None:
        """Look up ahead what each process that this one forks would look up for itself."""
        for name, result in _RESULTS.items():
            getattr(self._dll, name).restype = result

    def wasi(
        self,
        *,
        argv: Sequence[bytes],
        env: Sequence[tuple[bytes, bytes]],
        stdin: bytes | None,
        stdout: Callable[[bytes], int],
        stderr: Callable[[bytes], int],
        directories: Sequence[tuple[str, str, bool]] = (),
    ) -> None:
        """Give the module its WASI preview 1 world: no sockets, and no directories but those given.

        Args:
            argv: program name and arguments, UTF-8, without NUL.
            env: names and values, UTF-8, without NUL.
            stdin: the whole input; None to read it from this process's own.
            stdout: takes bytes; returns how many it has taken, or a negative errno.
            stderr: the same.
            directories: of each the path here, the path that the module sees, and whether it may write.

        Raises:
            InvalidModuleError: the engine cannot pass an argument or a variable.
        """
        config = c_void_p(self.call("wasi_config_new"))
        count = c_size_t(len(argv))
        if not self.call("wasi_config_set_argv", config, count, _strings(argv)):
            raise InvalidModuleError("arguments are not UTF-8")
        names, values = _strings([name for name, _ in env]), _strings([value for _, value in env])
        if not self.call("wasi_config_set_env", config, c_size_t(len(env)), names, values):
            raise InvalidModuleError("environment is not UTF-8")
        if stdin is None:
            self.call("wasi_config_inherit_stdin", config)
        else:
            given = Bytes()
            self.call("wasm_byte_vec_new", byref(given), c_size_t(len(stdin)), c_char_p(stdin))
            self.call("wasi_config_set_stdin_bytes", config, byref(given))
        for name, sink in (("stdout", stdout), ("stderr", stderr)):
            callback = _Write(_writer(sink))
            self._keep.append(callback)  # freed while the engine still points at it, it would crash
            self.call(f"wasi_config_set_{name}_custom", config, callback, c_void_p(), _Finalizer(0))
        for here, there, writable in directories:
            paths = c_char_p(here.encode()), c_char_p(there.encode())
            if not self.call("wasi_config_preopen_dir", config, *paths, c_bool(writable)):
                raise InvalidModuleError(f"the directory {there} cannot be opened")
        self.check(self.call("wasmtime_context_set_wasi", self.context, config))

    def compile(self, module: bytes, kind: str = "module") -> c_void_p:
        """Compile a module or a component.

        Raises:
            InvalidModuleError: it is invalid.
        """
        compiled = c_void_p()
        size = c_size_t(len(module))
        failed = self.call(f"wasmtime_{kind}_new", self.engine, c_char_p(module), size, byref(compiled))
        self.check(failed, InvalidModuleError)
        return compiled

    def serialize(self, compiled: c_void_p, kind: str = "module") -> bytes:
        """The machine code of a module or component, for `restore`."""
        made = Bytes()
        self.check(self.call(f"wasmtime_{kind}_serialize", compiled, byref(made)))
        code = ctypes.string_at(made.data, made.size)
        self.call("wasm_byte_vec_delete", byref(made))
        return code

    def restore(self, code: bytes, kind: str = "module") -> c_void_p | None:
        """Load the machine code of a module or component. Who chooses the code can do what this process can.

        Returns:
            The module; None if another engine, or one with other settings, has compiled it.
        """
        compiled = c_void_p()
        failed = self.call(
            f"wasmtime_{kind}_deserialize",
            self.engine,
            c_char_p(code),
            c_size_t(len(code)),
            byref(compiled),
        )
        if failed:
            self.call("wasmtime_error_delete", c_void_p(failed))
            return None
        return compiled

    def link(self, shape: Shape, compiled: c_void_p, *, fuel: int, memory_bytes: int) -> None:
        """Link a module with its imports, and limit it. No code of it runs.

        Args:
            shape: of the module.
            compiled: the module.
            fuel: limit, in units of the engine.
            memory_bytes: limit for its memories, tables and objects together.

        Raises:
            InvalidModuleError: it is not a command, or imports something that it cannot have.
            TooMuchMemoryError: its tables are over the limit.
        """
        if shape.start is None:
            raise InvalidModuleError("module exports no function _start; only WASI commands can be run")
        exported = Bytes()
        self.call("wasmtime_module_exports", compiled, byref(exported))
        types = (c_void_p * exported.size).from_address(exported.data or 0)
        function = c_void_p(self._type(types[shape.start], "functype"))
        for part in ("params", "results"):
            vector = self.call(f"wasm_functype_{part}", function)
            if Bytes.from_address(vector).size:
                raise InvalidModuleError("_start has parameters or results; a WASI command's has neither")
        limits = [self._table_limits(types[shape.exports + number]) for number in range(shape.tables)]
        self._tables = [shape.table_export(number) for number in range(shape.tables)]
        self.limit(limits, fuel=fuel, memory_bytes=memory_bytes)
        failed = self.call("wasmtime_linker_instantiate_pre", self.linker, compiled, byref(self._ready))
        self.check(failed, InvalidModuleError)

    def _table_limits(self, exported: int | None) -> tuple[int, int]:
        limits = self.call("wasm_tabletype_limits", c_void_p(self._type(exported, "tabletype")))
        least, most = (ctypes.c_uint32 * 2).from_address(limits)
        return least, most

    def _type(self, exported: int | None, kind: str) -> int:
        general = c_void_p(self.call("wasm_exporttype_type", c_void_p(exported)))
        return self.call(f"wasm_externtype_as_{kind}", general)

    def limit(
        self,
        tables: Sequence[Limits],
        *,
        fuel: int,
        memory_bytes: int,
        most_tables: int = MAX_TABLES,
        instances: int = 2,
    ) -> None:
        """Share the memory between the tables and the linear memories.

        The engine has one limit that holds for each table. So a table with a maximum is counted with that,
        and one without gets a part of the memory to grow into.

        Args:
            tables: least and most elements of each.
            fuel: limit, in units of the engine.
            memory_bytes: limit for memories, tables and objects together.
            most_tables: limit for their number.
            instances: limit; a module has one, and the reader of its input one.

        Raises:
            TooMuchMemoryError: the tables are over the limit.
        """
        room = memory_bytes // _GROWTH // _ELEMENT // max(len(tables), 1)
        elements = max((least for least, _ in tables), default=0) + room
        reserved = sum(_ELEMENT * min(most, elements) for _, most in tables)
        if reserved > memory_bytes:
            raise TooMuchMemoryError("the tables are larger than the memory limit")
        self.memories.limit = memory_bytes - reserved
        self.fixed_tables = reserved if all(least == most for least, most in tables) else None
        self.check(self.call("wasmtime_context_set_fuel", self.context, c_uint64(fuel)))
        self.call(
            "wasmtime_store_limiter",
            self._store,
            c_int64(self.memories.limit),
            c_int64(elements),
            c_int64(instances),
            c_int64(most_tables),
            c_int64(MAX_MEMORIES + 1),
        )

    def instantiate(self) -> None:
        """Make the instance; its start function runs here.

        Raises:
            TooMuchMemoryError: its memories start over the limit.
            Stopped: its start function trapped, or a segment does not fit.
        """
        trap = c_void_p()
        failed = self.call(
            "wasmtime_instance_pre_instantiate",
            self._ready,
            self.context,
            self._instance,
            byref(trap),
        )
        self._stop(trap)
        self.check_made(failed)

    def check_made(self, failed: int) -> None:
        """Raise the error, if it is one, with which an instance could not be made.

        Raises:
            TooMuchMemoryError: its memories start over the limit.
            InvalidModuleError: the machine has no addresses for them.
            Stopped: another one.
        """
        try:
            self.check(failed)
        except Stopped as error:
            # The C API has no code for this; the text is ours, or the engine's for a limit of its own.
            if EXCEEDED in str(error):
                raise TooMuchMemoryError(str(error)) from None
            if self.memories.lacking:
                raise InvalidModuleError(self.memories.lacking) from None
            raise

    def start(self) -> None:
        """Call `_start`.

        Raises:
            Stopped: it trapped or called proc_exit.
        """
        start = self.export(self._instance, b"_start", FUNC)
        trap = c_void_p()
        failed = self.call(
            "wasmtime_func_call",
            self.context,
            byref(start, UNION),
            c_void_p(),
            c_size_t(0),
            c_void_p(),
            c_size_t(0),
            byref(trap),
        )
        self._stop(trap)
        self.check(failed)

    def fuel_left(self) -> int:
        """Units of fuel in the store. The engine writes it there at calls and returns, not at traps."""
        left = c_uint64(0)
        self.check(self.call("wasmtime_context_get_fuel", self.context, byref(left)))
        return left.value

    def table_bytes(self) -> int:
        """The size of the instance's tables, bytes; they never shrink."""
        total = 0
        for name in self._tables:
            table = self.export(self._instance, name, _TABLE)
            total += _ELEMENT * self.call("wasmtime_table_size", self.context, byref(table, UNION))
        return total

    def export(
        self, instance: "ctypes.Array[ctypes.c_char]", name: bytes, kind: int
    ) -> "ctypes.Array[ctypes.c_char]":
        """An export of an instance, as a wasmtime_extern_t."""
        item = ctypes.create_string_buffer(ROOM)
        size = c_size_t(len(name))
        found = self.call("wasmtime_instance_export_get", self.context, instance, c_char_p(name), size, item)
        if not found or item.raw[0] != kind:
            raise InvalidModuleError(f"module does not export {name!r}")
        return item

    def _stop(self, trap: c_void_p) -> None:
        if not trap:
            return
        self._exited()
        code = ctypes.c_uint8()
        known = self.call("wasmtime_trap_code", trap, byref(code))
        message = self._text("wasm_trap_message", trap)
        raise Stopped(message, trap=code.value if known else None)

    def trap_text(self, number: int) -> str:
        """What the engine says of a trap.

        Args:
            number: index into `phase.jobs.traps.TRAPS`.
        """
        trap = self.call("wasmtime_trap_new_code", ctypes.c_uint8(number))
        return self._text("wasm_trap_message", c_void_p(trap))

    def check(self, error: int, kind: type[Exception] = Stopped) -> None:
        """Raise an error that the C API has returned, if it is one."""
        if not error:
            return
        self._exited()
        pointer = c_void_p(error)
        code = c_int()
        if self.call("wasmtime_error_exit_status", pointer, byref(code)):
            raise Stopped("exited", code=code.value)
        raise kind(self._text("wasmtime_error_message", pointer))

    def _exited(self) -> None:
        if self.exit_code is not None:
            raise Stopped("exited", code=self.exit_code)

    def _text(self, function: str, pointer: c_void_p) -> str:
        message = Bytes()
        self.call(function, pointer, byref(message))
        text = ctypes.string_at(message.data, message.size) if message.size else b""
        return _cause(text.rstrip(b"\0").decode("utf-8", "replace"))


def _cause(text: str) -> str:
    """The engine's message without its backtrace: the last cause that it names, or the first line."""
    if text.startswith("component imports"):
        return text.splitlines()[0]  # the causes do not say what it is that is missing
    _, found, causes = text.rpartition("Caused by:")
    lines = [line.strip() for line in (causes if found else text).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    line = lines[-1] if found else lines[0]
    number, colon, rest = line.partition(": ")
    return rest if colon and number.isdigit() else line


def _strings(values: Sequence[bytes]) -> "ctypes.Array[c_char_p]":
    return (c_char_p * max(len(values), 1))(*values)


def _writer(sink: Callable[[bytes], int]) -> Callable[[object, int | None, int], int]:
    def write(_data: object, start: int | None, size: int) -> int:
        return sink(ctypes.string_at(start, size)) if start else 0

    return write
