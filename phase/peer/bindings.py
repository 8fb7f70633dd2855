"""Loads the bindings of iroh, mends what is slow in them, and puts their errors into our words.

This module, `phase.peer.iroh` and `phase.peer.links` are the only ones that know iroh. It is loaded when a
transport starts, not before: its declarations alone take 30 ms, and more than a second under emulation.
"""

import asyncio
import ctypes
import itertools
import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

import iroh
from iroh import iroh_ffi

from phase.errors import printable
from phase.peer.errors import (
    ConnectionLostError,
    PeerError,
    RefusedError,
    StreamResetError,
    UnreachableError,
)
from phase.peer.outcome import over
from phase.peer.transport import Code

T = TypeVar("T")
#: As the bindings word it; the tests of the contract notice a change.
_BY_PEER = re.compile(r"closed by peer: (?:(.*) \(code (\d{1,19})\)|(\d{1,19}))", re.DOTALL)
_PLACE = re.compile(r" ?\((?:/|[A-Za-z]:)[^()]*:\d+:\d+\)")
_RESET = re.compile(r"(?:Reset|Stopped)\((\d{1,19})\)")
#: What a part of an error of `connect` means.
_REFUSALS = {
    "refused to accept a new connection": "it has too many connections",
    "support any known protocol": "it speaks another version of the protocol",
}
_UNREACHABLE = {
    "UnknownIssuer": "another node answers there",
    "not a valid public key": "no node can have this key",
    "Connecting to ourself": "that is this node's own key",
    "No addressing information": "no address of it is known",
    "Endpoint is closed": "this transport is closed",
}


class _Data(Protocol):
    @property
    def contents(self) -> ctypes.c_char: ...

    def __getitem__(self, part: slice) -> bytes: ...


class _Buffer(Protocol):
    data: _Data
    len: int


class _Said(Protocol):
    code: int


#: What the library says of a call: zero, or the kind and text of its error.
_Status: Callable[[], _Said] = iroh_ffi._UniffiRustCallStatus
_check: Callable[[object, object], None] = iroh_ffi._uniffi_check_call_status
_library = iroh_ffi._UniffiLib
#: Bytes of the length that precedes bytes in a buffer.
_LENGTH = 4


def _asked(errors: object, function: Callable[..., object], *args: object) -> object:
    """Call a function of the library; raises its error. As the bindings do, with one object for three."""
    status = _Status()
    value = function(*args, ctypes.byref(status))  # type: ignore[arg-type]  # a structure of ctypes
    if status.code:
        _check(errors, status)
    return value


def _at_once(name: str) -> Callable[..., object]:
    """A function of the library that is called without letting other threads of Python run.

    That takes longer than such a function, and others may take their time before this one gets its turn
    again. None that may wait for a lock: whoever has that may wait for this thread.
    """
    known = getattr(_library, name)
    made: Callable[..., object] = ctypes.PYFUNCTYPE(known.restype, *known.argtypes)((name, _library))
    return made


#: Memory of the library, taken and given back.
_allocate, _give_back = map(_at_once, ("ffi_iroh_ffi_rustbuffer_alloc", "ffi_iroh_ffi_rustbuffer_free"))


def _lower(value: bytes) -> _Buffer:
    """Bytes in a buffer of the library, behind their length. The bindings copy byte by byte in Python."""
    size = len(value)
    made = cast(_Buffer, _asked(None, _allocate, _LENGTH + size))
    start = ctypes.addressof(made.data.contents)
    ctypes.memmove(start, size.to_bytes(_LENGTH, "big"), _LENGTH)
    ctypes.memmove(start + _LENGTH, value if isinstance(value, bytes) else bytes(value), size)
    made.len = _LENGTH + size
    return made


def _lift(buffer: _Buffer) -> bytes:
    """The bytes in a buffer of the library, which is freed."""
    try:
        data, end = buffer.data, buffer.len
        if end < _LENGTH or int.from_bytes(data[:_LENGTH], "big") != end - _LENGTH:
            raise iroh_ffi.InternalError("a buffer is not as long as it says")
        return data[_LENGTH:end]
    finally:
        _asked(None, _give_back, buffer)


class _Poll:
    """One question to the library whether a call of it has ended.

    Args:
        loop: of the task that asks.
    """

    __slots__ = ("_loop", "_thread", "asking", "code", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._thread = loop, threading.get_ident()
        #: Until the library has returned from the question.
        self.asking = True
        #: The answer, once it has come.
        self.code: int | None = None
        #: Set by whoever waits for it.
        self.woken: asyncio.Future[None] | None = None

    def told(self, code: int) -> None:
        """The library's answer: in its own thread later on, or in the one that asks, at once."""
        if self.asking and threading.get_ident() == self._thread:
            self.code = code
        else:
            self._loop.call_soon_threadsafe(self._wake, code)

    def _wake(self, code: int) -> None:
        self.code = code
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)


#: Questions that have no answer yet, by a number. No lock: each step is one of the interpreter's.
_polls: dict[int, _Poll] = {}
_numbers = itertools.count(1)
#: After so many calls, one of them lets other tasks have their turn, even if no call has waited.
_IN_A_ROW = 16
_turns = itertools.count(1)


def _tell(number: int, code: int) -> None:
    """Called by the library: the answer to a question has come."""
    thread = threading.get_ident()
    within = thread in _answering
    _answering.add(thread)
    try:
        _polls.pop(number).told(code)
    finally:
        if not within:
            _answering.discard(thread)


#: The same, for C. It must live as long as the library may call it.
_TOLD: object = iroh_ffi._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(_tell)
_READY: int = iroh_ffi._UNIFFI_RUST_FUTURE_POLL_READY

#: Threads in which the library tells an answer. It may hold its locks then.
_answering: set[int] = set()
#: What was to be freed in one of them, and how: to free it there would wait for a lock that this thread has.
_late: deque[tuple[Callable[[object], None], object]] = deque()


def _free(free: Callable[[object], None], what: object) -> None:
    """Free something of the library, later if the collector finds it while the library tells an answer."""
    if threading.get_ident() in _answering:
        _late.append((free, what))
    else:
        free(what)


def _freeing(kind: type) -> Callable[[object], None]:
    """How an object of the library is freed, instead of the bindings' own way."""
    own: Callable[[object], None] = vars(kind)["__del__"]

    def freed(self: object) -> None:
        _free(own, self)

    return freed


async def _call(
    future: object,
    poll: Callable[..., None],
    complete: Callable[..., object],
    free: Callable[[object], None],
    lift: Callable[[object], T],
    errors: object,
) -> T:
    """What the bindings' own function for calls of async methods does, with less for those that end at once.

    The bindings take every answer through the loop's pipe, though most calls (to write, to finish, to read
    what is here) have ended when the library is asked for the first time.
    """
    loop = asyncio.get_running_loop()
    while _late:
        freeing, what = _late.popleft()
        freeing(what)
    try:
        while True:
            asked, number = _Poll(loop), next(_numbers)
            _polls[number] = asked
            poll(future, _TOLD, number)
            asked.asking = False
            waits = asked.code is None
            if waits:
                asked.woken = loop.create_future()
                await asked.woken
            if asked.code == _READY:
                break
            if not waits:
                # To ask again at once would be to wait for the library without letting it work.
                await asyncio.sleep(0)
        if next(_turns) % _IN_A_ROW == 0:
            await asyncio.sleep(0)
        return lift(_asked(errors, complete, future))
    finally:
        _free(free, future)


def mend() -> None:
    """Replace the slow copies, the slow calls and the untimely frees of the bindings of iroh 1.2.0."""
    repairs: list[tuple[object, str, object]] = [
        (kind, "__del__", _freeing(kind))
        for kind in vars(iroh_ffi).values()
        if isinstance(kind, type) and "__del__" in vars(kind)
    ]
    repairs += [
        (iroh_ffi._UniffiFfiConverterBytes, "lower", staticmethod(_lower)),
        (iroh_ffi._UniffiFfiConverterBytes, "lift", staticmethod(_lift)),
        (iroh_ffi, "_uniffi_rust_call_with_error", _asked),
        (iroh_ffi, "_uniffi_rust_call_async", _call),
    ]
    # To count another user of an object takes no lock.
    for kind in ("sendstream", "recvstream", "connection", "bistream"):
        name = f"uniffi_iroh_ffi_fn_clone_{kind}"
        repairs.append((_library, name, _at_once(name)))
    for place, name, repair in repairs:
        setattr(place, name, repair)


def ended(reason: str) -> PeerError:
    """The error for a connection that is over, though this side has not closed it.

    Args:
        reason: as the bindings give it; it holds what the peer said.
    """
    told = _BY_PEER.fullmatch(reason)
    if told is None:
        return ConnectionLostError(f"the connection was lost: {printable(reason)[:200]}")
    return over(int(told[2] or told[3]), told[1] or "")


def of_stream(error: iroh.IrohError) -> PeerError:
    """The error for a stream of a connection that goes on."""
    told = _RESET.fullmatch(error.message())
    if told is not None:
        return StreamResetError(int(told[1]))
    return PeerError(f"the stream takes no more: {_short(error)}")


def of_connect(error: iroh.IrohError, key: str) -> PeerError:
    """The error for a connection that did not come about."""
    text = error.message()
    for part, meaning in _REFUSALS.items():
        if part in text:
            return RefusedError(f"the node {key} refused: {meaning}", Code.BUSY)
    for part, meaning in _UNREACHABLE.items():
        if part in text:
            return UnreachableError(f"the node {key} cannot be reached: {meaning}")
    return UnreachableError(f"the node {key} cannot be reached: {_short(error)}")


def of_bind(error: iroh.IrohError, listen: Sequence[str]) -> PeerError:
    """The error for a transport that cannot listen."""
    return PeerError(
        f"cannot listen on {' and '.join(listen)} (UDP): {_short(error)}",
        hint="Choose another port, or stop what has it.",
    )


def _short(error: iroh.IrohError) -> str:
    """The innermost cause, without the places in the library's source."""
    return shortened(error.message())


def shortened(text: str) -> str:
    """An error of the library, for people.

    Args:
        text: its causes, one on each line, the innermost last; behind each may be a place in a source file.
    """
    last = text.strip().rsplit("\n", 1)[-1]
    return printable(_PLACE.sub("", last)).strip()[:200]


mend()
