"""Reads JSON from others, and turns every error of the decoder into one kind."""

from typing import TypeVar

import msgspec

T = TypeVar("T")
#: Limit for the decoder's message, characters; it may quote the input.
_MOST = 200


class MalformedError(ValueError):
    """The bytes are not JSON of the expected type; says where they differ."""


def read_json(data: bytes | bytearray, kind: type[T]) -> T:
    """Decode JSON into a type.

    Args:
        data: from anyone; the caller has bounded its size.
        kind: the type, as msgspec takes it.

    Returns:
        A value of that type.

    Raises:
        MalformedError: the bytes are not JSON or not UTF-8, are nested too deeply, or are of another type.
            No other error is raised.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(str(error)[:_MOST]) from error
