"""What a file that should be a module or a component is: the binary format, the text format, or neither.

Imported by the worker only, so that text is parsed where a job's limits hold.
"""

import ctypes
from ctypes import byref, c_char_p, c_size_t, c_void_p

from phase.jobs.engine import Bytes, Engine, InvalidModuleError

_MAGIC = b"\0asm"
#: Whitespace and a byte order mark may stand before the text format.
_BLANK = b" \t\r\n\xef\xbb\xbf"


def binary(engine: Engine, given: bytes) -> bytes:
    """Turn the text format into the binary format, and leave the binary format as it is.

    Args:
        engine: whose assembler is used.
        given: the file.

    Returns:
        A module or component in the binary format; whether it is valid, the engine says later.

    Raises:
        InvalidModuleError: it is neither format, or is not valid text.
    """
    if given[:4] != _MAGIC and given.lstrip(_BLANK)[:2].startswith((b"(", b";;")):
        given = _assemble(engine, given.removeprefix(b"\xef\xbb\xbf"))
    if given[:4] != _MAGIC:
        raise InvalidModuleError("it is not WebAssembly, neither in the binary nor in the text format")
    return given


def _assemble(engine: Engine, given: bytes) -> bytes:
    made = Bytes()
    failed = engine.call("wasmtime_wat2wasm", c_char_p(given), c_size_t(len(given)), byref(made))
    if failed:
        message = Bytes()
        engine.call("wasmtime_error_message", c_void_p(failed), byref(message))
        raise InvalidModuleError(_reason(_bytes(message).decode("utf-8", "replace")))
    return _bytes(made)


def _bytes(vector: Bytes) -> bytes:
    return ctypes.string_at(vector.data, vector.size) if vector.size else b""


def _reason(message: str) -> str:
    """The assembler's first line, with the place that its second line points to."""
    lines = message.splitlines() or ["no reason given"]
    place = next((line.rpartition("<anon>:")[2] for line in lines if "--> <anon>:" in line), "")
    line, colon, column = place.partition(":")
    where = f" in line {line}, column {column}" if colon else ""
    return f"its text is not valid{where}: {lines[0]}"
