"""One UDP socket: questions and their answers, each with an end.

Who is named as the sender of a datagram need not have sent it. Until an address has answered a question of
ours, which takes a number that only it was told, it gets at most `AMPLIFICATION` times what came from it.
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
#: Seconds to wait for an answer.
ANSWER_SECONDS = 1.0
#: Questions of one host: a second, and at once. Bytes sent to one host in answer to them: the same.
_QUESTIONS = (50.0, 200.0)
_BYTES = (8 << 10, 64 << 10)
#: Questions that are being answered at the same time.
_MAX_AT_ONCE = 64
#: Bytes sent to an address that has not answered yet, for each that came from it (RFC 9000, section 8).
AMPLIFICATION = 3
#: Seconds for which an address counts as proven, seconds for which somebody who was asked may ask back, and
#: how many of each, and of accounts, are remembered.
PROVEN_SECONDS, _ASKED_SECONDS, _MAX_REMEMBERED = 120.0, 5.0, 1024


class Endpoint(asyncio.DatagramProtocol):
    """Asks, and answers.

    Args:
        answerer: answers others. Where there is none, only a ping of somebody who was asked just before is
            answered, with nothing: that the address is real, and not that there is a node.
    """

    def __init__(self, answerer: Answerer | None) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport | None = None
        self._asked: dict[bytes, tuple[tuple[str, int], asyncio.Future[bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._questions = Budget(*_QUESTIONS)
        self._bytes = Budget(*_BYTES, together=128)
        #: When each address has answered, when it was asked, and how many bytes may go to who has not.
        self._proven: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._asked_at: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._credit: OrderedDict[str, int] = OrderedDict()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def error_received(self, exc: Exception) -> None:
        """A host or port is not there; the question's time runs out like any other."""

    async def ask(
        self, address: tuple[str, int], type_: Any, name: str, *arguments: bytes, seconds: float = 0.0
    ) -> Any:
        """Ask one node.

        Args:
            address: host and port.
            type_: what the answer must be.
            name: of the question.
            arguments: of it.
            seconds: to wait; the usual time when left out.

        Returns:
            The answer, of that type, or None where there is none, or another.
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
        """Take a datagram from anybody."""
        message = wire.split(data)
        if message is None or not addr[1]:
            return
        if not self.is_proven(addr[:2]):
            _remember(self._credit, addr[0], self._credit.get(addr[0], 0) + AMPLIFICATION * len(data))
        if message.kind == wire.ANSWER:
            address, future = self._asked.get(message.id, (None, None))
            # From whom it was asked, and the first one.
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
        # A small question in another's name must not become much for that other.
        if self._may_answer(address, len(data)) and self._bytes.take(address[0], len(data), monotonic()):
            self._send(data, address)

    def is_proven(self, address: tuple[str, int]) -> bool:
        """Whether somebody at this address has answered lately: it was not only named as a sender."""
        return monotonic() - self._proven.get(address, -1e9) < PROVEN_SECONDS

    def fits(self, address: tuple[str, int], said: object) -> bool:
        """Whether an answer may be sent there as it is."""
        return self._may_answer(address, 1 + wire.ID_BYTES + wire.size(said))

    def _may_answer(self, address: tuple[str, int], count: int) -> bool:
        return self.is_proven(address) or count <= self._credit.get(address[0], 0)

    def _may_ask(self, address: tuple[str, int], count: int) -> bool:
        # One that has sent nothing may be asked: somebody here, or a node that was asked, has named it.
        return self.is_proven(address) or count <= self._credit.get(address[0], count)

    def _send(self, data: bytes, address: tuple[str, int]) -> None:
        if self._transport is None:
            return
        if address[0] in self._credit and not self.is_proven(address):
            self._credit[address[0]] -= len(data)
        self._transport.sendto(data, address)

    def close(self) -> None:
        """Answer and wait no more."""
        for task in self._answering:
            task.cancel()
        if self._transport is not None:
            self._transport.close()


def _remember(among: "OrderedDict[_Key, _Value]", key: _Key, value: _Value) -> None:
    among[key] = value
    among.move_to_end(key)
    if len(among) > _MAX_REMEMBERED:
        among.popitem(last=False)
