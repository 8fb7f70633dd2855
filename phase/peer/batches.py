"""Has iroh send datagrams one by one, where Linux may refuse several in one call (`UDP_SEGMENT`).

Linux before 6.11 refuses a batch for a network card that leaves checksums to the processor, as simple cards
do. iroh's library for UDP (noq-udp 1.4.0) notices, and yet goes on with batches on the connections that it
has: what takes more than one datagram never arrives. There is no switch. But it asks once, when the first
socket is bound, for the version of Linux, and makes no batches before 4.18.
"""

import contextlib
import ctypes
import os
import re
from collections.abc import Coroutine, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
#: From this version on, Linux makes the checksums itself where the card does not.
_SINCE = (6, 11)
#: Of personality(2): ask which one it is; have uname tell a version 2.6.
_ASK, _UNAME26 = 0xFFFFFFFF, 0x0020000


async def bound(work: Coroutine[Any, Any, T]) -> T:
    """Await the library's binding of sockets, and have it make no batches where they may be refused.

    Args:
        work: of the library.

    Returns:
        What the work returns.
    """
    if may_refuse(os.uname().release):
        return await _AsOnOldLinux(work)
    return await work


def may_refuse(release: str) -> bool:
    """Whether a version of Linux may refuse a batch of datagrams.

    Args:
        release: as uname tells it.
    """
    told = re.match(r"(\d{1,9})\.(\d{1,9})", release)
    return told is None or (int(told[1]), int(told[2])) < _SINCE


class _AsOnOldLinux(Generic[T]):
    """Awaits work; while that is at it, and no other task, Linux tells this thread that it is old."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        try:
            while True:
                with _said_to_be_old():
                    waits = next(steps)
                yield waits
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()


@contextlib.contextmanager
def _said_to_be_old() -> Iterator[None]:
    personality = ctypes.CDLL(None).personality
    personality.argtypes = [ctypes.c_ulong]
    before = personality(_ASK)
    # Where that is forbidden, the library goes on as it would.
    personality(before | _UNAME26 if before >= 0 else _ASK)
    try:
        yield
    finally:
        personality(before if before >= 0 else _ASK)
