"""One UDP socket: questions and their answers, each with an end."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar, cast

import msgspec

from phase.discovery.budget import Budget
from phase.discovery.dht import wire

_T = TypeVar("_T")
#: Takes the sender's address, the question's name and its arguments; an answer of None is not sent.
Answerer = Callable[[tuple[str, int], str, list[bytes]], Awaitable[object]]
#: Seconds to wait for an answer.
ANSWER_SECONDS = 1.0
#: Questions of one host: a second, and at once. Bytes sent to one host in answer to them: the same.
_QUESTIONS = (50.0, 200.0)
_BYTES = (8 << 10, 64 << 10)
#: Questions that are being answered at the same time.
_MAX_AT_ONCE = 64


class Endpoint(asyncio.DatagramProtocol):
    """Asks, and answers.

    Args:
        answerer: answers others; nobody is answered where there is none.
    """

    def __init__(self, answerer: Answerer | None) -> None:
        self._answerer = answerer
        self._transport: asyncio.DatagramTransport | None = None
        self._asked: dict[bytes, tuple[tuple[str, int], asyncio.Future[bytes]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._questions = Budget(*_QUESTIONS)
        self._bytes = Budget(*_BYTES, together=128)

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
        number = os.urandom(wire.ID_BYTES)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = (address, future)
        try:
            self._transport.sendto(wire.question(number, name, *arguments), address)
            async with asyncio.timeout(seconds or ANSWER_SECONDS):
                return msgspec.msgpack.decode(await future, type=type_)
        except (OSError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        finally:
            del self._asked[number]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take a datagram from anybody."""
        message = wire.split(data)
        if message is None:
            return
        if message.kind == wire.ANSWER:
            address, future = self._asked.get(message.id, (None, None))
            # From whom it was asked, and the first one.
            if future is not None and address == addr[:2] and not future.done():
                future.set_result(message.body)
            return
        if self._answerer is None or len(self._answering) >= _MAX_AT_ONCE:
            return
        asked = wire.read_question(message.body)
        if asked is None or not self._questions.take(addr[0], 1, monotonic()):
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
        if self._bytes.take(address[0], len(data), monotonic()):
            self._transport.sendto(data, address)

    def close(self) -> None:
        """Answer and wait no more."""
        for task in self._answering:
            task.cancel()
        if self._transport is not None:
            self._transport.close()
