"""What one node of a DHT sends and receives, whichever program it is: the wire format is the same."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

Address = tuple[str, int]
_P = TypeVar("_P", bound=asyncio.BaseProtocol)


class Datagram(NamedTuple):
    """One datagram, and when it passed (seconds, monotonic)."""

    sent: bool
    data: bytes
    other: Address
    at: float


class Tape:
    """Counts all datagrams of one node; while `kept` is a list, keeps them, too."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0
        self.kept: list[Datagram] | None = None

    def note(self, sent: bool, data: bytes, other: Address) -> None:
        """Take one datagram down."""
        self.messages += 1
        self.bytes += len(data)
        if self.kept is not None:
            self.kept.append(Datagram(sent, data, other[:2], time.monotonic()))

    @contextlib.contextmanager
    def keeping(self) -> Iterator[list[Datagram]]:
        """Keep what passes meanwhile."""
        self.kept = []
        try:
            yield self.kept
        finally:
            self.kept = None


class _Transport:
    """A node's transport, with a tape that runs."""

    def __init__(self, inner: asyncio.DatagramTransport, tape: Tape) -> None:
        self._inner, self._tape = inner, tape

    def sendto(self, data: bytes, addr: Address) -> None:
        self._tape.note(True, data, addr)
        self._inner.sendto(data, addr)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, inner: asyncio.DatagramProtocol, tape: Tape) -> None:
        self._inner, self._tape = inner, tape

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        taped = _Transport(cast(asyncio.DatagramTransport, transport), self._tape)
        self._inner.connection_made(cast(asyncio.DatagramTransport, taped))

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._tape.note(False, data, addr)
        self._inner.datagram_received(data, addr)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose UDP sockets have tapes; `tapes` has them by local host."""

    def __init__(self) -> None:
        super().__init__()
        self.tapes: dict[str, Tape] = {}

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], _P], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.DatagramTransport, _P]:
        """As of any loop."""
        inner, tape = protocol_factory(), Tape()
        taped = _Protocol(cast(asyncio.DatagramProtocol, inner), tape)
        transport, _ = await super().create_datagram_endpoint(lambda: taped, *args, **kwargs)
        self.tapes[transport.get_extra_info("sockname")[0]] = tape
        return cast(asyncio.DatagramTransport, _Transport(transport, tape)), inner


class Way(NamedTuple):
    """How a lookup came to its answer.

    Attributes:
        hops: 1 where a node that the asker knew has answered, 2 where one has that such a node named, ...
        messages: datagrams of the asker until then, of all kinds and in both directions.
        at: when (seconds, monotonic).
    """

    hops: int
    messages: int
    at: float


def way(tape: list[Datagram], good: Callable[[bytes], bool]) -> Way | None:
    """The way to the first answer with a good value; None if there was none."""
    asked: dict[bytes, Address] = {}
    depth: dict[Address, int] = {}
    for number, (sent, data, other, at) in enumerate(tape):
        if sent and data[:1] == b"\0" and b"find_value" in data[21:40]:
            asked[data[1:21]] = other
            depth.setdefault(other, 1)
        elif not sent and data[:1] == b"\1" and asked.get(data[1:21]) == other:
            values, named = _said(data[21:])
            if any(good(value) for value in values):
                return Way(depth[other], number + 1, at)
            for host, port in named:
                depth.setdefault((host, port), depth[other] + 1)
    return None


def _said(body: bytes) -> tuple[list[bytes], list[Address]]:
    """The values and the nodes of an answer."""
    try:
        said = msgspec.msgpack.decode(body)
        nodes = said if isinstance(said, list) else said.get("nodes", [])
        value = [] if isinstance(said, list) else said["value"]
        values = [value] if isinstance(value, bytes) else value
        return values, [(host, port) for _, host, port in nodes]
    except (msgspec.MsgspecError, AttributeError, TypeError, ValueError, KeyError):
        return [], []
