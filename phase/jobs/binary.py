"""Reads the sections of a module that its limits depend on (WebAssembly 3.0, chapter 5, binary format).

Nothing is validated here: that is the engine's work. Bytes that cannot be read are left as they are, and
the engine reports what is wrong with them.
"""

import os

from phase.jobs import wire

#: Least and most elements of a table.
Limits = tuple[int, int]
_MAGIC = b"\0asm\x01\0\0\0"
_CUSTOM, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _EXPORT, _CODE = 0, 2, 3, 4, 5, 7, 10
_FUNC_KIND, _TABLE_KIND = 0, 1
#: The types of references that are written as one byte; and the maximum of a table that has none.
_SHORT_TYPES, _ENDLESS = range(0x69, 0x75), 2**32 - 1
#: In a memory's flags (threads proposal).
_SHARED = 2
#: Name of the exports that the worker adds to ask for the size of the tables. No tool makes such a name.
_TABLE_NAME = "\0phase table {}"
#: Limit for the compiler's memory, unless the job asks for more.
COMPILE_BYTES = 1536 << 20
#: The compiler's memory: for a module, for a byte of code, for a function.
_BASE, _PER_BYTE, _PER_FUNCTION = 128 << 20, 256, 5500
#: The assembler's memory for a byte of text.
_PER_CHARACTER = 64
#: Limit for the sections of a module: it has each kind once, except custom ones.
_MAX_SECTIONS = 16
#: Limit for the tables of a job.
MAX_TABLES = 16
#: Limit for the linear memories of a job.
MAX_MEMORIES = 16


class Shape:
    """The parts of a module.

    Args:
        module: the bytes to compile: without custom sections, with an export for each table.
        code_bytes: size of its functions' code.
        functions: functions it defines.
        tables: tables it defines.
        memories: linear memories it defines.
        shared: whether a linear memory it defines is shared between threads.
        imports: WASI functions it asks for.
        start: position of the function `_start` among the exports; None if there is no such function.
        exports: how many exports it had of its own.
        limits: least and most elements of each table that it defines; None if they are not written plainly.
    """

    #: Of the engine's functions: `module` or `component`.
    kind = "module"

    def __init__(self, module: bytes) -> None:
        self.module = module
        self.code_bytes = self.functions = self.tables = self.memories = self.exports = 0
        self.shared = False
        self.imports: set[bytes] = set()
        self.start: int | None = None
        self.limits: list[Limits] | None = None

    def table_export(self, number: int) -> bytes:
        """Name under which a table is exported, besides the module's own names for it."""
        return _TABLE_NAME.format(number).encode()

    def packed(self) -> bytes:
        """What is needed of it beside the compiled module; for `unpacked`."""
        start = -1 if self.start is None else self.start
        return wire.pack(f"{self.tables} {self.exports} {start}".encode(), *sorted(self.imports))


def unpacked(packed: bytes) -> Shape:
    """The shape of a module that was compiled earlier."""
    shape = Shape(b"")
    numbers, *imports = wire.unpack(packed)
    shape.tables, shape.exports, shape.start = map(int, numbers.split())
    shape.imports = set(imports)
    return shape


def compile_bytes(shape: Shape, most: int) -> int:
    """The compiler's memory limit for a module, by the needs of programs that real compilers make.

    Measured with wasmtime 50 on x86_64, counting fuel: CPython (6 MB of code) needs 208 bytes for a byte of
    code, small programs less.

    Args:
        shape: of the module.
        most: the job's limit, in bytes.

    Returns:
        Bytes, at most half of the machine's memory. A limit above the default is used as it is.
    """
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = _BASE + _PER_BYTE * shape.code_bytes
    return min(most, ram // 2, needed if most <= COMPILE_BYTES else most)


def assembler_bytes(length: int, most: int) -> int:
    """The assembler's memory limit for text of a length, by the needs of usual text."""
    return min(most, _BASE + _PER_CHARACTER * length)


def least_bytes(shape: Shape) -> int:
    """The memory that the compiler needs at least, if all functions are empty (measured: 6,000 each)."""
    return shape.functions * _PER_FUNCTION


def read(module: bytes, *, ask: bool = True) -> Shape:
    """Read a module's sections.

    Args:
        module: bytes from anywhere.
        ask: whether it runs by itself, so that its imports count, and its tables can be asked for.

    Returns:
        Its shape. For bytes that are not a module: the same bytes, with nothing found in them.
    """
    shape = Shape(module)
    try:
        sections = list(_sections(module))
        found = {kind: (at, end) for kind, at, end in sections}
        for kind, number in ((_FUNCTION, "functions"), (_TABLE, "tables"), (_MEMORY, "memories")):
            if kind in found:
                setattr(shape, number, leb(module, found[kind][0])[0])
        if _CODE in found:
            shape.code_bytes = found[_CODE][1] - found[_CODE][0]
        if _MEMORY in found:
            shape.shared = _shared(module, *found[_MEMORY])
        if not ask:
            shape.module = _rewritten(module, sections, shape, ask=False)
            shape.limits = _limits(module, *found[_TABLE]) if _TABLE in found else []
            return shape
        if _IMPORT in found:
            shape.imports = _wasi_imports(module, *found[_IMPORT])
        if _EXPORT in found:
            shape.exports, shape.start = _exports(module, *found[_EXPORT])
        shape.module = _rewritten(module, sections, shape, ask=True)
    except (IndexError, ValueError):
        pass
    return shape


def _sections(module: bytes) -> "list[tuple[int, int, int]]":
    if not module.startswith(_MAGIC):
        raise ValueError("not a module")
    found = []
    at = len(_MAGIC)
    while at < len(module):
        kind = module[at]
        size, at = leb(module, at + 1)
        if at + size > len(module):
            raise ValueError("section runs over the end")
        if kind != _CUSTOM:  # names and debug information: the engine would keep a copy
            found.append((kind, at, at + size))
        if len(found) > _MAX_SECTIONS:
            raise ValueError("a section comes twice")
        at += size
    return found


def _wasi_imports(module: bytes, at: int, end: int) -> set[bytes]:
    """The names of the functions wanted from WASI, as long as imports are functions with a type."""
    count, at = leb(module, at)
    names = set()
    for _ in range(count):
        origin, at = name(module, at)
        wanted, at = name(module, at)
        if at >= end or module[at] != _FUNC_KIND:
            break  # only functions can be linked; the engine refuses the rest by name
        _, at = leb(module, at + 1)
        if origin == b"wasi_snapshot_preview1":
            names.add(wanted)
    return names


def _shared(module: bytes, at: int, end: int) -> bool:
    count, at = leb(module, at)
    for _ in range(count):
        flags, at = leb(module, at)
        if flags & _SHARED:
            return True
        for _ in range(1 + (flags & 1) + (flags >> 3 & 1)):  # least, most, page size
            while at < end and module[at] & 0x80:
                at += 1
            at += 1
    return False


def _limits(module: bytes, at: int, end: int) -> list[Limits] | None:
    count, at = leb(module, at)
    found = []
    for _ in range(count):
        if at >= end or module[at] not in _SHORT_TYPES or module[at + 1] > 1:
            return None
        bounded = module[at + 1]
        least, at = leb(module, at + 2)
        most, at = leb(module, at) if bounded else (_ENDLESS, at)
        found.append((least, most))
    return found


def _exports(module: bytes, at: int, end: int) -> tuple[int, int | None]:
    count, at = leb(module, at)
    start = None
    for position in range(count):
        exported, at = name(module, at)
        if at >= end:
            raise ValueError("exports run over their section")
        if exported == b"_start" and module[at] == _FUNC_KIND:
            start = position
        _, at = leb(module, at + 1)
    return count, start


def _rewritten(module: bytes, sections: list[tuple[int, int, int]], shape: Shape, *, ask: bool) -> bytes:
    parts, extended = [_MAGIC], not ask
    for kind, at, end in sections:
        body = module[at:end]
        # Only once: the engine refuses a module with several such sections, but it must not grow before
        # that.
        if kind == _EXPORT and not extended and shape.tables <= MAX_TABLES:
            extended = True
            _, begin = leb(module, at)
            body = unsigned(shape.exports + shape.tables) + module[begin:end]
            for number in range(shape.tables):
                added = shape.table_export(number)
                body += unsigned(len(added)) + added + bytes([_TABLE_KIND]) + unsigned(number)
        parts += (bytes([kind]), unsigned(len(body)), body)
    return b"".join(parts)


def name(module: bytes, at: int) -> tuple[bytes, int]:
    """A name, and the position after it."""
    size, at = leb(module, at)
    return module[at : at + size], at + size


def leb(module: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number of at most 32 bits, and the position after it."""
    value = shift = 0
    while True:
        byte = module[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise ValueError("number is too long")


def unsigned(value: int) -> bytes:
    """A number in LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
