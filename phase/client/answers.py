"""Reads what a node answers."""

from functools import reduce
from operator import or_
from typing import Any, TypeVar, overload

from phase.client.errors import RejectedError
from phase.peer import messages
from phase.peer.messages import Rejected

T = TypeVar("T")
U = TypeVar("U")


@overload
def answer(data: bytes, kind: type[T], /) -> T: ...
@overload
def answer(data: bytes, kind: type[T], other: type[U], /) -> T | U: ...
def answer(data: bytes, *kinds: Any) -> Any:  # a union that is made here is a value, and no type to mypy
    """Read a message of one of some kinds, any of which a node may refuse instead.

    Args:
        data: the content of its frame.
        kinds: those that are expected.

    Raises:
        RejectedError: the node refuses.
        ProtocolError: it is another message, or none.
    """
    said = messages.read(data, reduce(or_, kinds, Rejected))
    if isinstance(said, Rejected):
        raise RejectedError(said.reason, said.detail)
    return said
