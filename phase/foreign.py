"""Reads JSON from others, and turns every error of the decoder into one kind."""

import json
from types import UnionType
from typing import TypeVar

import msgspec

T = TypeVar("T")
#: Limit for the decoder's message, characters; it may quote the input.
_MOST = 200
#: Limits for JSON that every reader must read alike: nested objects and arrays, and values in all.
MAX_DEPTH, MAX_VALUES = 64, 1 << 14


class MalformedError(ValueError):
    """The bytes are not JSON of the expected type; says where they differ."""


def read_json(data: bytes | bytearray, kind: type[T] | UnionType) -> T:
    """Decode JSON into a type.

    Args:
        data: from anyone; the caller has bounded its size.
        kind: the type, as msgspec takes it. Of a union, the caller's own annotation says which T it is.

    Returns:
        A value of that type.

    Raises:
        MalformedError: the bytes are not JSON or not UTF-8, are nested too deeply, or are of another type.
            No other error is raised.
    """
    try:
        value: T = msgspec.json.decode(data, type=kind)
        return value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(str(error)[:_MOST]) from error


def check_alike(data: bytes) -> None:
    """Refuse JSON that other readers may read differently, or not at all.

    What is signed must say the same to everyone. The decoder of `read_json` takes the last of two equal
    names, where others take the first, and does not look into fields that it skips.

    Args:
        data: from anyone; the caller has bounded its size.

    Raises:
        MalformedError: it is not JSON (RFC 8259) in UTF-8, an object has a name twice, a string has half of
            a surrogate pair, or it has more than `MAX_DEPTH` levels or `MAX_VALUES` values.
    """
    try:
        # Numbers are not looked at: of many digits, they would only cost time.
        root = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=len,
            parse_float=len,
            parse_constant=_no_number,
        )
        if not _plain(data):
            _check_size(root)
    except (ValueError, RecursionError) as error:
        raise MalformedError(str(error)[:_MOST]) from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"an object has the name {_twice(pairs)[:40]!a} twice")
    "".join(found).encode()
    return found


def _twice(pairs: list[tuple[str, object]]) -> str:
    """The first name that was there before."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    return name


def _plain(data: bytes) -> bool:
    """Whether JSON cannot have too many levels or values, nor half pairs, by what each of them begins with.

    Most of what is signed is; to count costs a tenth of looking at each value.
    """
    begins = data.count(b"[") + data.count(b"{")
    values = 1 + begins + data.count(b",") + data.count(b":")
    return begins <= MAX_DEPTH and values <= MAX_VALUES and b"\\u" not in data


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_size(root: object) -> None:
    """Count levels and values, and look for half pairs in strings."""
    level, values, depth = [root], 0, 0
    while level:
        values += len(level)
        depth += any(isinstance(each, dict | list) for each in level)
        if values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(f"it has more than {MAX_DEPTH} levels or {MAX_VALUES} values")
        level = [inner for each in level for inner in _inside(each)]


def _inside(value: object) -> "list[object]":
    if isinstance(value, str):
        value.encode()
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
