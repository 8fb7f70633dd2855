"""One UDP socket for questions and answers, with limits.

The sender's address of a datagram may be forged. An address is proven when it answers a question of ours,
for which it needs the random id in that question. Until then it gets at most `AMPLIFICATION` times the bytes
that came from it.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar, cast

import msgspec

from phase.discovery.budget import Budget
from phase.discovery.dht import wire

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
#: Takes the sender's address, the question's name and its arguments; an answer of None is not sent.
Answerer = Callable[[tuple[str, int], str, list[bytes]], Awaitable[object]]
#: Seconds to wait for an answer: twice the way by satellite and back, since who is asked asks back first.
ANSWER_SECONDS = 2.0
#: Limits for the questions of one host: per second, and at once. The same for the bytes of the answers.
_QUESTIONS = (50.0, 200.0)
_BYTES = (8 << 10, 64 << 10)
#: Limit for questions that are answered at the same time.
_MAX_AT_ONCE = 64
#: Bytes that may go to an unproven address for each byte that came from it (RFC 9000, section 8).
AMPLIFICATION = 3
#: Seconds for which an address counts as proven; seconds for which a host that was asked may ask back; and
#: how many addresses of each kind are remembered.
PROVEN_SECONDS, _ASKED_SECONDS, _MAX_REMEMBERED = 120.0, 5.0, 1024


class Endpoint(asyncio.DatagramProtocol):
    """Asks, and answers.

    Args:
        answerer: answers others. Without one, only a ping from a host that was asked just before gets an
            answer, an empty one: it proves the address, but does not claim to be a node.
    """

    def __init__(self, answerer: Answerer | None) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport | None = None
        self._asked: dict[bytes, tuple[tuple[str, int], asyncio.Future[bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._questions = Budget(*_QUESTIONS)
        self._bytes = Budget(*_BYTES, together=128)
        #: By address: when it has answered, when it was asked, and how many bytes may still go to it.
        self._proven: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._asked_at: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._credit: OrderedDict[str, int] = OrderedDict()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """A host or port cannot be reached; its question times out like any other."""

    async def ask(
        self, address: tuple[str, int], type_: Any, name: str, *arguments: bytes, seconds: float = 0.0
    ) -> Any:
        """Ask one node.

        Args:
            address: host and port.
            type_: expected type of the answer.
            name: of the question.
            arguments: of the question.
            seconds: to wait; the usual time when left out.

        Returns:
            The answer; None if there was none, or one of another type.
        """
        if self._transport is None or self._transport.is_closing():
            return None
        if not self._may_ask(address, wire.question_bytes(name, *arguments)):
            return None
        number = os.urandom(wire.ID_BYTES)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = (address, future)
        try:
            _remember(self._asked_at, address, monotonic())
            self._send(wire.question(number, name, *arguments), address)
            async with asyncio.timeout(seconds or ANSWER_SECONDS):
                return msgspec.msgpack.decode(await future, type=type_)
        except (OSError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        finally:
            del self._asked[number]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram from anyone."""
        message = wire.split(data)
        if message is None or not addr[1]:
            return
        if not self.is_proven(addr[:2]):
            _remember(self._credit, addr[0], self._credit.get(addr[0], 0) + AMPLIFICATION * len(data))
        if message.kind == wire.ANSWER:
            address, future = self._asked.get(message.id, (None, None))
            # Only the first answer counts, and only from the address that was asked.
            if future is not None and address == addr[:2] and not future.done():
                _remember(self._proven, address, monotonic())
                self._credit.pop(addr[0], None)
                future.set_result(message.body)
            return
        if len(self._answering) >= _MAX_AT_ONCE:
            return
        asked = wire.read_question(message.body)
        if asked is None or not self._questions.take(addr[0], 1, monotonic()):
            return
        if self._answerer is None:
            if asked[0] == "ping" and monotonic() - self._asked_at.get(addr[:2], -1e9) < _ASKED_SECONDS:
                self._send(wire.answer(message.id, b""), addr[:2])
            return
        task = asyncio.ensure_future(self._answer(self._answerer, message.id, addr[:2], *asked))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(
        self, answerer: Answerer, number: bytes, address: tuple[str, int], name: str, arguments: list[bytes]
    ) -> None:
        said = await answerer(address, name, arguments)
        if said is None or self._transport is None or self._transport.is_closing():
            return
        data = wire.answer(number, said)
        # A small question with a forged address must not send much to that address.
        if self._may_answer(address, len(data)) and self._bytes.take(address[0], len(data), monotonic()):
            self._send(data, address)

    def is_proven(self, address: tuple[str, int]) -> bool:
        """Whether this address has answered lately, which proves that it is not forged."""
        return monotonic() - self._proven.get(address, -1e9) < PROVEN_SECONDS

    def fits(self, address: tuple[str, int], said: object) -> bool:
        """Whether an answer may be sent there as it is."""
        return self._may_answer(address, 1 + wire.ID_BYTES + wire.size(said))

    def _may_answer(self, address: tuple[str, int], count: int) -> bool:
        return self.is_proven(address) or count <= self._credit.get(address[0], 0)

    def _may_ask(self, address: tuple[str, int], count: int) -> bool:
        # An address that has sent nothing may be asked: a person, or a node that was asked, has named it.
        return self.is_proven(address) or count <= self._credit.get(address[0], count)

    def _send(self, data: bytes, address: tuple[str, int]) -> None:
        if self._transport is None:
            return
        if address[0] in self._credit and not self.is_proven(address):
            self._credit[address[0]] -= len(data)
        self._transport.sendto(data, address)

    def close(self) -> None:
        """Stop: neither answer nor wait any more."""
        for task in self._answering:
            task.cancel()
        if self._transport is not None:
            self._transport.close()


def _remember(among: "OrderedDict[_Key, _Value]", key: _Key, value: _Value) -> None:
    among[key] = value
    among.move_to_end(key)
    if len(among) > _MAX_REMEMBERED:
        among.popitem(last=False)
