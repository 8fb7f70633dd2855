"""Reading JSON that somebody else has written: one place that knows what the decoder can raise."""

from typing import TypeVar

import msgspec

T = TypeVar("T")
#: Characters of a decoder's message that are passed on; it may quote the input.
_MOST = 200


class MalformedError(ValueError):
    """The bytes are not JSON of the expected type; says where they differ."""


def read_json(data: bytes | bytearray, kind: type[T]) -> T:
    """Decode JSON into a type, or say why not.

    Args:
        data: from anybody; the caller has bounded its size.
        kind: what it must be, as msgspec takes it.

    Returns:
        A value of that type.

    Raises:
        MalformedError: the only error, whatever the bytes are: bad JSON, bad UTF-8, nested too deeply,
            or of another type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(str(error)[:_MOST]) from error
