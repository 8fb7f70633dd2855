"""Gives a job its memory: all linear memories and the garbage collector's heap, within one limit.

The engine's own limit is per memory. So the engine asks this module for each memory
(wasmtime_memory_creator_t), and the bytes are counted: their sum stays under the limit, and its peak is
known at the end. The address space of a memory is reserved once and never moves; only the part that the
module has grown to is accessible.
"""

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_int, c_long, c_size_t, c_void_p

_PROT_NONE, _PROT_READ_WRITE = 0, 1 | 2
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x20, 0x4000
_PAGE = 1 << 16
#: Part of the message that this limit was met; the engine uses the same words for its own limit.
EXCEEDED = "exceeds memory limits"

_Get = ctypes.CFUNCTYPE(c_void_p, c_void_p, POINTER(c_size_t), POINTER(c_size_t))
_Grow = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_size_t)


class _LinearMemory(ctypes.Structure):
    """wasmtime_linear_memory_t."""

    _fields_ = (("env", c_void_p), ("get_memory", _Get), ("grow_memory", _Grow), ("finalizer", c_void_p))


_New = ctypes.CFUNCTYPE(
    c_void_p, c_void_p, c_void_p, c_size_t, c_size_t, c_size_t, c_size_t, POINTER(_LinearMemory)
)


class Creator(ctypes.Structure):
    """wasmtime_memory_creator_t."""

    _fields_ = (("env", c_void_p), ("new_memory", _New), ("finalizer", c_void_p))


class Memories:
    """All memories of one job. They are freed with the process.

    Args:
        fail: makes an error of the engine from a message.
    """

    def __init__(self, fail: Callable[[str], int]) -> None:
        self._fail = fail
        libc = ctypes.CDLL(None, use_errno=True)
        self._map, self._protect = libc.mmap, libc.mprotect
        self._map.restype = c_void_p
        self._map.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
        self._protect.argtypes = (c_void_p, c_size_t, c_int)
        self._places: list[tuple[int, int]] = []
        self._sizes: list[int] = []
        #: Limit for all memories together, bytes; None while the worker makes modules of its own.
        self.limit: int | None = None
        #: Why the machine could not provide a memory; empty if it could.
        self.lacking = ""
        #: Bytes of the job's memories. A memory never shrinks, so this is also the peak.
        self.used = 0
        # References are kept, since the engine would crash if it called a freed function.
        self._get, self._grow = _Get(self._tell), _Grow(self._enlarge)
        self.creator = Creator(None, _New(self._create), None)

    def _create(
        self,
        _env: object,
        _type: object,
        minimum: int,
        maximum: int,
        reserved: int,
        guard: int,
        out: "ctypes._Pointer[_LinearMemory]",
    ) -> int | None:
        if self.limit is not None and self.used + minimum > self.limit:
            return self._fail(f"memory {EXCEEDED}")
        capacity = max(reserved, minimum)
        if self.limit is not None:
            capacity = max(capacity, min(maximum, self.limit))
        capacity = -(-capacity // _PAGE) * _PAGE
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE
        place = self._map(None, capacity + guard, _PROT_NONE, flags, -1, 0)
        if place is None or place == c_void_p(-1).value or not self._open(place, minimum):
            self.lacking = (
                f"its process may not have {capacity + guard >> 20} MiB of addresses more (ulimit -v); "
                "a smaller memory limit may help"
            )
            return self._fail(self.lacking)
        self._places.append((place, capacity))
        self._sizes.append(minimum)
        if self.limit is not None:
            self.used += minimum
        memory = out.contents
        memory.env, memory.get_memory, memory.grow_memory = len(self._sizes), self._get, self._grow
        memory.finalizer = None
        return None

    def _tell(
        self, env: int, size: "ctypes._Pointer[c_size_t]", capacity: "ctypes._Pointer[c_size_t]"
    ) -> int:
        place, room = self._places[env - 1]
        size.contents.value, capacity.contents.value = self._sizes[env - 1], room
        return place

    def _enlarge(self, env: int, size: int) -> int | None:
        place, room = self._places[env - 1]
        more = size - self._sizes[env - 1]
        if size > room or (self.limit is not None and self.used + more > self.limit):
            return self._fail(f"memory {EXCEEDED}")
        if not self._open(place, size):
            return self._fail(f"memory {EXCEEDED}: the machine has no {more} bytes")
        self._sizes[env - 1] = size
        self.used += more
        return None

    def _open(self, place: int, size: int) -> bool:
        return size == 0 or self._protect(place, size, _PROT_READ_WRITE) == 0
