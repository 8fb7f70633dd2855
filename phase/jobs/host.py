"""The WASI functions that the worker defines itself, in place of the engine's.

proc_exit     The engine refuses exit codes above 125.
fd_read       The job's input is read only when the module asks for it: the parent hears how much is
poll_oneoff   wanted, then the engine's own function reads the bytes that have come.

Of a deterministic job also the functions of `phase.jobs.determined`.

The engine's functions find the caller's memory by its export, so they cannot be called from here. A small
module of the worker calls them on its own memory, and the bytes are then copied to the job's memory.
"""

import ctypes
from collections.abc import Callable, Iterable
from ctypes import byref, c_char_p, c_size_t, c_uint64, c_void_p

from phase.jobs.engine import FUNC, ROOM, UNION, Bytes, Engine

#: Calls three of the engine's functions on its own memory:
#:
#:     (module
#:       (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
#:       (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
#:       (import "wasi_snapshot_preview1" "fd_fdstat_get" (func (param i32 i32) (result i32)))
#:       (memory (export "memory") 3)
#:       (func (export "fd_read") (param i32 i32 i32 i32) (result i32)
#:         (call 0 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
#:       (func (export "poll_oneoff") (param i32 i32 i32 i32) (result i32)
#:         (call 1 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
#:       (func (export "fd_fdstat_get") (param i32 i32) (result i32)
#:         (call 2 (local.get 0) (local.get 1))))
READER = bytes.fromhex(
    "0061736d01000000010f0260047f7f7f7f017f60027f7f017f026e0316776173695f736e617073686f745f70726576696577"
    "310766645f72656164000016776173695f736e617073686f745f70726576696577310b706f6c6c5f6f6e656f666600001677"
    "6173695f736e617073686f745f70726576696577310d66645f6664737461745f676574000103040300000105030100030732"
    "04066d656d6f727902000766645f7265616400030b706f6c6c5f6f6e656f666600040d66645f6664737461745f6765740005"
    "0a24030c00200020012002200310000b0c00200020012002200310010b08002000200110020b"
)
_WASI = b"wasi_snapshot_preview1"
_MEMORY = 3  # WASMTIME_EXTERN_MEMORY
EINVAL = 28  # WASI's, not this machine's
#: Bytes of the reader's memory before its buffer, and of the buffer: the engine reads no more at once.
_BUFFER, MOST = 1 << 16, 1 << 16
#: Limit for the vectors in one read, and the subscriptions in one poll.
MANY = 1024
SUBSCRIPTION, EVENT = 48, 32
FD_READ = 1  # eventtype
#: fs_rights_base in an fdstat, and fd_read in it.
_RIGHTS, _MAY_READ = 8, 1 << 1
#: Of fs_filetype: a directory, a regular file.
_FILES = (3, 4)
#: To find out whether there is input, the engine reads a page and keeps it for the next read.
_PEEK = 4096
_FUEL = 1 << 62

Function = Callable[[int, "ctypes.Array[c_uint64]"], int | None]
Memory = Callable[[int], tuple[int, int] | None]
Trap = Callable[[str], int]
More = Callable[[Memory, Trap], Iterable[tuple[bytes, str, Function]]]
_Host = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p, c_size_t)


class Host:
    """Defines the worker's functions in the engine's linker, before the module is linked.

    Args:
        engine: with its WASI world.
        imports: WASI functions that the module imports; others are not defined.
        want: called before input is read, with the bytes read so far and the bytes that may be read now.
            None if the engine has the whole input.
        more: makes further functions, from the caller's memory and a trap with a message: of each its name,
            its parameters and its code.
    """

    def __init__(
        self,
        engine: Engine,
        imports: set[bytes],
        want: Callable[[int, int], None] | None,
        more: More | None = None,
    ) -> None:
        self._engine = engine
        self._want = want
        self._read = 0
        self._keep: list[object] = []
        self._functions: dict[bytes, ctypes.Array[ctypes.c_char]] = {}
        if want is not None and imports & {b"fd_read", b"poll_oneoff"}:
            self._make_reader()
            self._define(b"fd_read", self._fd_read, "iiii")
            self._define(b"poll_oneoff", self._poll_oneoff, "iiii")
        if b"proc_exit" in imports:
            self._define(b"proc_exit", self._proc_exit, "i", results=0)
        for name, kinds, code in more(self.memory, self.trap) if more else ():
            if name in imports:
                self._define(name, code, kinds)

    def _make_reader(self) -> None:
        engine = self._engine
        reader = engine.reader or engine.compile(READER)
        instance, trap = ctypes.create_string_buffer(ROOM), c_void_p()
        engine.check(engine.call("wasmtime_context_set_fuel", engine.context, c_uint64(_FUEL)))
        engine.check(
            engine.call(
                "wasmtime_linker_instantiate",
                engine.linker,
                engine.context,
                reader,
                instance,
                byref(trap),
            )
        )
        for name in (b"fd_read", b"poll_oneoff", b"fd_fdstat_get"):
            self._functions[name] = engine.export(instance, name, FUNC)
        memory = engine.export(instance, b"memory", _MEMORY)
        self._buffer = engine.call("wasmtime_memory_data", engine.context, byref(memory, UNION))

    def _define(
        self,
        name: bytes,
        function: Function,
        parameters: str,
        results: int = 1,
    ) -> None:
        """Define a function of WASI: `i` stands for a parameter of 32 bits, `I` for one of 64."""

        def called(_env: object, caller: int, values: int, _count: int) -> int | None:
            # wasmtime_val_raw_t: 16 bytes each, an i32 in the first four.
            return function(caller, (c_uint64 * (2 * count)).from_address(values))

        engine, callback = self._engine, _Host(called)
        self._keep.append(callback)
        kinds = []
        count = len(parameters)
        for words in (parameters, "i" * results):
            numbers = [engine.call("wasm_valtype_new", ctypes.c_uint8("iI".index(each))) for each in words]
            vector = Bytes()
            given = (c_void_p * len(words))(*numbers)
            engine.call("wasm_valtype_vec_new", byref(vector), c_size_t(len(words)), given)
            kinds.append(vector)
        kind = c_void_p(engine.call("wasm_functype_new", byref(kinds[0]), byref(kinds[1])))
        engine.check(
            engine.call(
                "wasmtime_linker_define_func_unchecked",
                engine.linker,
                c_char_p(_WASI),
                c_size_t(len(_WASI)),
                c_char_p(name),
                c_size_t(len(name)),
                kind,
                callback,
                c_void_p(),
                c_void_p(),
            )
        )

    def _proc_exit(self, _caller: int, values: "ctypes.Array[c_uint64]") -> int:
        self._engine.exit_code = values[0] & 0xFFFFFFFF
        return self.trap("exited")

    def _fd_read(self, caller: int, values: "ctypes.Array[c_uint64]") -> int | None:
        descriptor, vectors, count, told = (values[2 * n] & 0xFFFFFFFF for n in range(4))
        memory = self.memory(caller)
        if memory is None:
            return self.trap("missing required memory export")
        start, size = memory
        if count > MANY:
            values[0] = EINVAL
            return None
        if vectors + 8 * count > size or told + 4 > size:
            return self.trap("pointer out of bounds")
        place = length = 0
        for number in range(count):
            place, length = (ctypes.c_uint32 * 2).from_address(start + vectors + 8 * number)
            if length:
                break  # like the engine, which fills the first vector that is not empty
        if place + length > size:
            return self.trap("pointer out of bounds")
        length = min(length, MOST)
        # A read that fails must not take input.
        if length and self._want is not None and self._readable(descriptor):
            self._want(self._read, length)
        (ctypes.c_uint32 * 2).from_address(self._buffer)[:] = [_BUFFER, length]
        trap = self._ask(b"fd_read", values, (descriptor, 0, 1, 8))
        if trap or values[0]:
            return trap
        got = min(ctypes.c_uint32.from_address(self._buffer + 8).value, length)
        self._read += got
        ctypes.memmove(start + place, self._buffer + _BUFFER, got)
        ctypes.c_uint32.from_address(start + told).value = got
        return None

    def _poll_oneoff(self, caller: int, values: "ctypes.Array[c_uint64]") -> int | None:
        given, out, count, told = (values[2 * n] & 0xFFFFFFFF for n in range(4))
        memory = self.memory(caller)
        if memory is None:
            return self.trap("missing required memory export")
        start, size = memory
        if count > MANY:
            values[0] = EINVAL
            return None
        if given + SUBSCRIPTION * count > size or out + EVENT * count > size or told + 4 > size:
            return self.trap("pointer out of bounds")
        wanted = ctypes.string_at(start + given, SUBSCRIPTION * count)
        asked = {
            int.from_bytes(wanted[at + 16 : at + 20], "little")
            for at in range(0, len(wanted), SUBSCRIPTION)
            if wanted[at + 8] == FD_READ
        }
        if self._want is not None and any(map(self._readable, asked)):
            self._want(self._read, _PEEK)
        ctypes.memmove(self._buffer + _BUFFER, wanted, len(wanted))
        trap = self._ask(b"poll_oneoff", values, (_BUFFER, 16, count, 8))
        if trap or values[0]:
            return trap
        happened = min(ctypes.c_uint32.from_address(self._buffer + 8).value, count)
        ctypes.memmove(start + out, self._buffer + 16, EVENT * happened)
        ctypes.c_uint32.from_address(start + told).value = happened
        return None

    def _readable(self, descriptor: int) -> bool:
        """Whether a descriptor of the job is its input, and not a file; the job may have renumbered it."""
        values = (c_uint64 * 2)()
        trap = self._ask(b"fd_fdstat_get", values, (descriptor, 16))
        rights = c_uint64.from_address(self._buffer + 16 + _RIGHTS).value
        kind = ctypes.c_uint8.from_address(self._buffer + 16).value
        return not trap and values[0] == 0 and bool(rights & _MAY_READ) and kind not in _FILES

    def _ask(self, name: bytes, values: "ctypes.Array[c_uint64]", given: tuple[int, ...]) -> int | None:
        """Call the engine's function, and use its result as the result of the job's function."""
        engine, trap = self._engine, c_void_p()
        left = engine.fuel_left()
        raw = (c_uint64 * 8)(*(value for number in given for value in (number, 0)))
        engine.call("wasmtime_context_set_fuel", engine.context, c_uint64(_FUEL))
        failed = engine.call(
            "wasmtime_func_call_unchecked",
            engine.context,
            byref(self._functions[name], UNION),
            raw,
            c_size_t(len(given)),
            byref(trap),
        )
        # The reader's fuel does not count as the job's.
        engine.call("wasmtime_context_set_fuel", engine.context, c_uint64(left))
        if failed:
            return self.trap("the input cannot be read")
        values[0] = raw[0] & 0xFFFFFFFF
        return trap.value

    def memory(self, caller: int) -> tuple[int, int] | None:
        """The address of the job's memory in this process, and its size in bytes."""
        engine, item = self._engine, ctypes.create_string_buffer(ROOM)
        found = engine.call(
            "wasmtime_caller_export_get",
            c_void_p(caller),
            c_char_p(b"memory"),
            c_size_t(6),
            item,
        )
        if not found or item.raw[0] != _MEMORY:
            return None
        place = byref(item, UNION)
        return (
            engine.call("wasmtime_memory_data", engine.context, place),
            engine.call("wasmtime_memory_data_size", engine.context, place),
        )

    def trap(self, message: str) -> int:
        """A trap with this message, for the engine."""
        text = message.encode()
        return self._engine.call("wasmtime_trap_new", c_char_p(text), c_size_t(len(text)))
