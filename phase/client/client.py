"""Gives jobs to nodes: asyncio."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TypeVar

from phase.client.answers import answer
from phase.client.kept import fetch
from phase.client.patience import ANSWER_SECONDS, check_job
from phase.client.submission import Input, Submission, refusal
from phase.client.task import Asked, Result, Task
from phase.client.words import check_name, check_text
from phase.identity import Identity
from phase.peer.errors import ConnectionLostError, PeerError, RefusedError
from phase.peer.framing import Frames, Kind, ProtocolError
from phase.peer.messages import (
    Cancel,
    Describe,
    Description,
    Jobs,
    JobStatus,
    List,
    Question,
    State,
    StatusAsked,
    frame,
)
from phase.peer.transport import Address, Code, Connection, Stream, Transport

#: Seconds to connect to a node.
CONNECT_SECONDS = 15.0
T = TypeVar("T")


class Client:
    """Gives jobs to nodes, over one transport. A connection to each node is kept.

    Args:
        transport: whose key the nodes must allow.
        connect_seconds: to connect to a node.
    """

    def __init__(self, transport: Transport, *, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._transport, self._connect_seconds = transport, connect_seconds
        self._connections: dict[str, Connection] = {}
        self._connecting: dict[str, asyncio.Lock] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, identity: Identity, *, relays: Iterable[str] = (), connect_seconds: float = CONNECT_SECONDS
    ) -> AsyncIterator["Client"]:
        """A client with a transport of its own, which ends with it.

        Args:
            identity: whose key the nodes must allow.
            relays: URLs, for nodes that cannot be reached directly.
            connect_seconds: to connect to a node.

        Raises:
            PeerError: there is no network to use.
        """
        from phase.peer.iroh import IrohTransport, Options

        transport = await IrohTransport.start(identity, Options(relays=tuple(relays)))
        try:
            yield cls(transport, connect_seconds=connect_seconds)
        finally:
            await transport.close()

    @property
    def key(self) -> str:
        """This client's key, as nodes must allow it."""
        return self._transport.key

    async def run(self, node: Address | str, task: Task, *, job: str | None = None) -> Result:
        """Run a job at a node, and wait for its verified result. If this is cancelled, so is the job.

        Args:
            node: its address; as text `KEY[@HOST:PORT]`.
            task: the job.
            job: an id that this client has not used there; random when left out.

        Raises:
            RejectedError, NotRunError, JobLostError, UntrueError: see `phase.client.errors`.
            PeerError: the network failed before the node had the job.
        """
        made = await self.submit(node, task, job=job)
        try:
            return await made.result()
        except asyncio.CancelledError:
            await made.leave()  # its node ends it
            raise

    async def submit(
        self,
        node: Address | str,
        task: Task,
        *,
        job: str | None = None,
        nonce: str | None = None,
        source: Input | None = None,
        detached: bool = False,
    ) -> Submission:
        """Give a job to a node. Returns once the node has taken it.

        Args:
            node: its address.
            task: the job.
            job: an id that this client has not used there; random when left out.
            nonce: for the receipt; random when left out.
            source: streams the input, instead of `task.stdin`.
            detached: whether the job goes on without this client, and the node keeps its result for `fetch`.

        Raises:
            ClientError: no node takes this id, nonce, argument or variable.
            RejectedError: the node refuses.
            JobLostError: the network failed, or the node was silent; it may have the job.
            PeerError: the network failed before the node had the job.
        """
        address = _address(node)
        job = os.urandom(16).hex() if job is None else job
        nonce = os.urandom(16).hex() if nonce is None else nonce
        _check(task, job, nonce)
        stream = await self._stream(address)
        made = Submission(
            stream,
            task,
            node=address.key,
            job=job,
            nonce=nonce,
            client=self.key,
            # Not by way of what is made here: a cycle would keep the stream until the collector comes.
            ask=lambda: self._state(address, job),
        )
        try:
            await made.offer(detached=detached, source=source)
        except BaseException:
            await made.leave()
            raise
        return made

    async def fetch(self, node: Address | str, job: str, asked: Asked | None = None) -> Result:
        """The result of a detached job; waits for its end.

        Args:
            node: where it was submitted.
            job: its id.
            asked: what was asked for; if left out, the receipt is verified for id, node and output only.

        Raises:
            RejectedError: the node does not know the job.
            NotRunError, NotKeptError, JobLostError, UntrueError: see `phase.client.errors`.
            PeerError: the network failed.
        """
        check_name("job id", job)
        address = _address(node)
        frames = Frames(await self._stream(address))
        try:
            return await fetch(frames, address.key, job, asked, lambda: self._state(address, job))
        except PeerError as error:
            raise refusal(error) or error from error
        finally:
            await frames.stream.reset(Code.DONE)

    async def status(self, node: Address | str, job: str) -> JobStatus:
        """How far a job is.

        Raises:
            RejectedError: the node does not know it.
            PeerError: the network failed.
        """
        check_name("job id", job)
        return _about(job, await self._ask(node, StatusAsked(job=job), JobStatus))

    async def _state(self, address: Address, job: str) -> State:
        return (await self.status(address, job)).state

    async def cancel(self, node: Address | str, job: str) -> JobStatus:
        """End a job.

        Raises:
            RejectedError: the node does not know it.
            PeerError: the network failed.
        """
        check_name("job id", job)
        return _about(job, await self._ask(node, Cancel(job=job), JobStatus))

    async def jobs(self, node: Address | str) -> tuple[JobStatus, ...]:
        """The newest jobs of this client at a node, the newest first.

        Raises:
            PeerError: the network failed.
        """
        return (await self._ask(node, List(), Jobs)).jobs

    async def describe(self, node: Address | str) -> Description:
        """What a node is, and what of it is free.

        Raises:
            RejectedError: the node refuses.
            PeerError: the network failed.
        """
        return await self._ask(node, Describe(), Description)

    async def close(self) -> None:
        """Close all connections; the transport stays open."""
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()

    async def _ask(self, node: Address | str, question: Question, kind: type[T]) -> T:
        frames = Frames(await self._stream(_address(node)))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await frames.send(frame(question))
                found = await frames.receive(seconds=None)
        except TimeoutError:
            await frames.stream.reset(Code.DONE)
            raise ProtocolError(f"the node does not answer within {ANSWER_SECONDS:g} s") from None
        except PeerError as error:
            raise refusal(error) or error from error
        if found is None or found.kind is not Kind.MESSAGE:
            raise ProtocolError("the node does not answer")
        await frames.stream.finish()
        return answer(found.data, kind)

    async def _stream(self, address: Address, *, again: bool = True) -> Stream:
        """A new stream to a node; over a connection that is open, or a new one."""
        # One connection for all that ask at the same time.
        async with self._connecting.setdefault(address.key, asyncio.Lock()):
            kept = self._connections.get(address.key)
            if kept is None:
                try:
                    kept = await self._transport.connect(address, self._connect_seconds)
                except RefusedError as error:
                    raise refusal(error) or error from error
                self._connections[address.key] = kept
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await kept.open()
        except TimeoutError:
            raise ProtocolError(f"the node lets no stream be opened for {ANSWER_SECONDS:g} s") from None
        except RefusedError as error:
            raise refusal(error) or error from error
        except ConnectionLostError:
            if self._connections.get(address.key) is kept:
                del self._connections[address.key]
            if not again:
                raise
            # It ended since it was last used.
            return await self._stream(address, again=False)


@lru_cache(maxsize=256)
def _parsed(node: str) -> Address:
    return Address.parse(node)


def _address(node: Address | str) -> Address:
    return _parsed(node) if isinstance(node, str) else node


def _about(job: str, said: JobStatus) -> JobStatus:
    check_job(job, said.job)
    return said


def _check(task: Task, job: str, nonce: str) -> None:
    check_name("job id", job)
    check_name("nonce", nonce)
    check_text("argument", task.args)
    check_text("variable", (word for pair in task.env.items() for word in pair))
    check_text("file", (*task.inputs, *task.outputs))
