"""The wasmtime C API, as far as one job needs it; imported by the worker only.

`import wasmtime` declares the whole C API, some two thousand ctypes prototypes, before the first
call: 120 ms on a PC, seconds under emulation. A worker runs one module once and calls about
twenty-five functions, so it declares those against the same library from the same wheel.
The structures below follow wasm.h, wasi.h and wasmtime.h of `VERSION` (documented at
docs.wasmtime.dev/c-api); the runner refuses any other version.
"""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

from phase.jobs.location import VERSION as VERSION

#: wasmtime/trap.h, WASMTIME_TRAP_CODE_*, in order.
TRAPS = (
    "stack overflow",
    "memory out of bounds",
    "heap misaligned",
    "table out of bounds",
    "indirect call to null",
    "bad signature",
    "integer overflow",
    "integer division by zero",
    "bad conversion to integer",
    "unreachable",
    "interrupt",
    "out of fuel",
)
INTERRUPT = TRAPS.index("interrupt")
OUT_OF_FUEL = TRAPS.index("out of fuel")
#: WASMTIME_EXTERN_FUNC and WASMTIME_EXTERN_MEMORY.
_FUNC = 0
_MEMORY = 3
#: Bytes set aside for a wasmtime_extern_t or wasmtime_instance_t (32 and 16 in this version).
_ROOM = 64
#: Where a wasmtime_extern_t's union starts, after its kind.
_UNION = 8

_Write = ctypes.CFUNCTYPE(ctypes.c_ssize_t, c_void_p, c_void_p, c_size_t)
_Finalizer = ctypes.CFUNCTYPE(None, c_void_p)


class _Bytes(ctypes.Structure):
    """wasm_byte_vec_t."""

    _fields_ = (("size", c_size_t), ("data", c_void_p))


class InvalidModuleError(Exception):
    """The bytes are no module, or it cannot be linked with WASI preview 1."""


class Stopped(Exception):  # a trap is an outcome, not an error of ours
    """The module did not return from `_start`.

    Args:
        message: the engine's words.
        code: what it gave to proc_exit, if it did.
        trap: index into `TRAPS`, if the engine classified it.
    """

    def __init__(self, message: str, *, code: int | None = None, trap: int | None = None) -> None:
        self.code = code
        self.trap = trap
        super().__init__(message)


class Engine:
    """One engine with one store: everything that one job needs, freed with the process.

    Args:
        library: path of wasmtime's shared library.
    """

    def __init__(self, library: str) -> None:
        self._dll = ctypes.CDLL(library)
        self._keep: list[object] = []
        config = self._call("wasm_config_new", c_void_p)
        self._call("wasmtime_config_consume_fuel_set", None, c_void_p(config), c_bool(True))
        self._call("wasmtime_config_epoch_interruption_set", None, c_void_p(config), c_bool(True))
        # Same NaN bits on every architecture, so equal jobs give equal output digests.
        self._call(
            "wasmtime_config_cranelift_nan_canonicalization_set", None, c_void_p(config), c_bool(True)
        )
        # One job, one core: compiling must not take the machine from its neighbours.
        self._call("wasmtime_config_parallel_compilation_set", None, c_void_p(config), c_bool(False))
        # The engine would keep the data segments in a memory file, to map them into each instance. A worker
        # may not write a file, and has one instance: the engine copies them.
        self._call("wasmtime_config_memory_init_cow_set", None, c_void_p(config), c_bool(False))
        self._engine = c_void_p(self._call("wasm_engine_new_with_config", c_void_p, c_void_p(config)))
        self._store = c_void_p(
            self._call("wasmtime_store_new", c_void_p, self._engine, c_void_p(), c_void_p())
        )
        self._context = c_void_p(self._call("wasmtime_store_context", c_void_p, self._store))
        self._increment = self._dll.wasmtime_engine_increment_epoch
        self._increment.restype = None
        self._call("wasmtime_context_set_epoch_deadline", None, self._context, c_uint64(1))
        self._instance = ctypes.create_string_buffer(_ROOM)
        self._loaded = False

    def _call(self, name: str, result: type | None, *args: object) -> int:
        function = getattr(self._dll, name)
        function.restype = result
        value = function(*args)
        return value or 0

    def interrupt(self) -> None:
        """Stop the module at its next loop or call. Safe from any thread and from a write callback."""
        self._increment(self._engine)

    def limit(self, *, fuel: int, memory_bytes: int) -> None:
        """Give the store its fuel (units of the engine) and its linear memory (bytes)."""
        self._check(self._call("wasmtime_context_set_fuel", c_void_p, self._context, c_uint64(fuel)))
        self._call(
            "wasmtime_store_limiter",
            None,
            self._store,
            c_int64(memory_bytes),
            c_int64(1_000_000),  # table elements, 8 bytes each
            c_int64(1),  # instances
            c_int64(16),  # tables
            c_int64(1),  # memories, so that memory_bytes is the whole
        )

    def wasi(
        self,
        *,
        argv: Sequence[bytes],
        env: Sequence[tuple[bytes, bytes]],
        stdin: bytes,
        stdout: Callable[[bytes], int],
        stderr: Callable[[bytes], int],
    ) -> None:
        """Give the module its WASI preview 1 world: no directories, no sockets.

        Args:
            argv: program name and arguments, UTF-8, without NUL.
            env: names and values, UTF-8, without NUL.
            stdin: the whole input.
            stdout: takes bytes, returns how many it took or a negative errno.
            stderr: likewise.

        Raises:
            InvalidModuleError: an argument or variable the engine cannot pass.
        """
        config = c_void_p(self._call("wasi_config_new", c_void_p))
        count = c_size_t(len(argv))
        if not self._call("wasi_config_set_argv", c_bool, config, count, _strings(argv)):
            raise InvalidModuleError("arguments are not UTF-8")
        names, values = _strings([name for name, _ in env]), _strings([value for _, value in env])
        if not self._call("wasi_config_set_env", c_bool, config, c_size_t(len(env)), names, values):
            raise InvalidModuleError("environment is not UTF-8")
        given = _Bytes()
        self._call("wasm_byte_vec_new", None, byref(given), c_size_t(len(stdin)), c_char_p(stdin))
        self._call("wasi_config_set_stdin_bytes", None, config, byref(given))
        for name, sink in (("stdout", stdout), ("stderr", stderr)):
            callback = _Write(_writer(sink))
            self._keep.append(callback)  # freed while the engine still points at it, it would crash
            self._call(f"wasi_config_set_{name}_custom", None, config, callback, c_void_p(), _Finalizer(0))
        self._check(self._call("wasmtime_context_set_wasi", c_void_p, self._context, config))

    def load(self, module: bytes) -> None:
        """Compile a module and link it with WASI preview 1; its start function runs here.

        Raises:
            InvalidModuleError: it is no module, or wants what it cannot have.
            Stopped: its start function trapped.
        """
        compiled = c_void_p()
        size = c_size_t(len(module))
        failed = self._call(
            "wasmtime_module_new", c_void_p, self._engine, c_char_p(module), size, byref(compiled)
        )
        self._check(failed, InvalidModuleError)
        linker = c_void_p(self._call("wasmtime_linker_new", c_void_p, self._engine))
        self._check(self._call("wasmtime_linker_define_wasi", c_void_p, linker))
        trap = c_void_p()
        failed = self._call(
            "wasmtime_linker_instantiate",
            c_void_p,
            linker,
            self._context,
            compiled,
            self._instance,
            byref(trap),
        )
        self._stop(trap)
        self._check(failed, InvalidModuleError)
        self._loaded = True

    def start(self) -> None:
        """Call `_start`.

        Raises:
            InvalidModuleError: there is no such function.
            Stopped: it trapped or called proc_exit.
        """
        start = self._export(b"_start", _FUNC)
        if start is None:
            raise InvalidModuleError("module exports no function _start; only WASI commands can be run")
        trap = c_void_p()
        failed = self._call(
            "wasmtime_func_call",
            c_void_p,
            self._context,
            byref(start, _UNION),
            c_void_p(),
            c_size_t(0),
            c_void_p(),
            c_size_t(0),
            byref(trap),
        )
        self._stop(trap)
        self._check(failed)

    def fuel_left(self) -> int:
        """Units of fuel not burnt."""
        left = c_uint64(0)
        self._check(self._call("wasmtime_context_get_fuel", c_void_p, self._context, byref(left)))
        return left.value

    def memory_bytes(self) -> int:
        """Size of the module's exported memory; it never shrinks, so this is its peak."""
        memory = self._export(b"memory", _MEMORY)
        if memory is None:
            return 0
        return self._call("wasmtime_memory_data_size", c_size_t, self._context, byref(memory, _UNION))

    def _export(self, name: bytes, kind: int) -> "ctypes.Array[ctypes.c_char] | None":
        if not self._loaded:
            return None  # asked about no instance, the engine aborts the process
        item = ctypes.create_string_buffer(_ROOM)
        found = self._call(
            "wasmtime_instance_export_get",
            c_bool,
            self._context,
            self._instance,
            c_char_p(name),
            c_size_t(len(name)),
            item,
        )
        return item if found and item.raw[0] == kind else None

    def _stop(self, trap: c_void_p) -> None:
        if not trap:
            return
        code = ctypes.c_uint8()
        known = self._call("wasmtime_trap_code", c_bool, trap, byref(code))
        message = self._text("wasm_trap_message", trap)
        raise Stopped(message, trap=code.value if known else None)

    def _check(self, error: int, kind: type[Exception] = Stopped) -> None:
        if not error:
            return
        pointer = c_void_p(error)
        code = c_int()
        if self._call("wasmtime_error_exit_status", c_bool, pointer, byref(code)):
            raise Stopped("exited", code=code.value)
        raise kind(self._text("wasmtime_error_message", pointer))

    def _text(self, function: str, pointer: c_void_p) -> str:
        message = _Bytes()
        self._call(function, None, pointer, byref(message))
        text = ctypes.string_at(message.data, message.size) if message.size else b""
        return text.rstrip(b"\0").decode("utf-8", "replace")


def _strings(values: Sequence[bytes]) -> "ctypes.Array[c_char_p]":
    return (c_char_p * max(len(values), 1))(*values)


def _writer(sink: Callable[[bytes], int]) -> Callable[[object, int | None, int], int]:
    def write(_data: object, start: int | None, size: int) -> int:
        return sink(ctypes.string_at(start, size)) if start else 0

    return write
