"""One job at one node, from its offer to its verified result."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, NamedTuple

from msgspec.structs import replace

from phase.client.answers import answer
from phase.client.errors import JobLostError, NotRunError, RejectedError, UntrueError
from phase.client.patience import ANSWER_SECONDS, Patience, check_end
from phase.client.task import Result, Task
from phase.client.verify import check, counted
from phase.errors import PhaseError
from phase.jobs.flow import Counted
from phase.jobs.receipt import Content, Receipt
from phase.peer import messages
from phase.peer.errors import PeerError, RefusedError, StreamResetError
from phase.peer.framing import CHUNK, Frames, Kind, ProtocolError, file_frames, file_part, pack
from phase.peer.messages import (
    EARLY_INPUT,
    Accepted,
    Cancel,
    Offer,
    Progress,
    Reason,
    Rejected,
    Request,
    State,
    frame,
)
from phase.peer.transport import Code, Stream

#: Most bytes of output that are kept in memory, beyond what the limits of the job let through.
_SLACK = 1 << 16
#: The input, if it is not known as a whole.
Input = AsyncIterator[bytes]


class Output(NamedTuple):
    """A part of the output, as it came."""

    stream: Literal["stdout", "stderr"]
    data: bytes


class Submission:
    """A job at a node. Made by `Client.submit`.

    Args:
        stream: to the node; nothing was sent on it.
        task: the job.
        node: the node's key.
        job: the job's id.
        nonce: for its receipt.
        client: this side's key.
        ask: how far the job is, asked on another stream.
    """

    def __init__(
        self,
        stream: Stream,
        task: Task,
        *,
        node: str,
        job: str,
        nonce: str,
        client: str,
        ask: Callable[[], Awaitable[State]],
    ) -> None:
        self.task, self.node, self.job = task, node, job
        #: What its receipt must be of.
        self.asked = task.asked(nonce, client)
        #: How far the job is, as the node said last.
        self.state = State.QUEUED
        #: Jobs that were queued before it when it was taken.
        self.waiting = 0
        #: Whether the node wanted the module.
        self.sent_module = False
        self._frames = Frames(stream)
        self._patience = Patience(self._frames, job, task.limits.wall_seconds, ask)
        self._source: Input | None = None
        self._sending: asyncio.Task[None] | None = None
        self._passed = {"stdout": Counted(), "stderr": Counted()}
        self._given = bytearray(task.stdin)
        self._files: dict[str, bytearray] = {}
        self._envelope: bytes | None = None
        self._ended: messages.Result | None = None

    async def offer(self, *, detached: bool = False, source: Input | None = None) -> None:
        """Offer the job, and send what the node wants of it.

        Args:
            detached: whether the node keeps the result; returns once the node is sure to have the job.
            source: streams the input, instead of the task's.

        Raises:
            RejectedError: the node refuses.
            JobLostError: the network failed; the node may have the job.
        """
        self._source = source
        stdin = self.task.stdin
        if source is None and (self.task.seed is not None or len(stdin) <= EARLY_INPUT):
            self.asked = replace(self.asked, stdin=counted(stdin))
        asked = Offer(
            job=self.job,
            nonce=self.asked.nonce,
            module=self.task.content,
            limits=self.task.limits,
            arch=self.task.arch,
            runtime=self.task.runtime,
            seed=self.task.seed,
            attempt=self.task.attempt,
            inputs=self.asked.inputs,
            outputs=self.asked.outputs,
            detached=detached,
            input=None if source is not None else len(self.task.stdin),
        )
        request = Request(args=tuple(self.task.args), env=dict(self.task.env))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._frames.send(frame(asked), frame(request), *self._early())
                accepted = await self._answer()
        except TimeoutError:
            raise JobLostError(self.job, f"the node does not answer within {ANSWER_SECONDS:g} s") from None
        except PeerError as error:
            if (refused := refusal(error)) is not None:
                raise refused from error
            # The node may have the offer, and the offer may be all that it needs.
            raise JobLostError(self.job, error.what) from error
        self.waiting, self.sent_module = accepted.waiting, accepted.send_module
        if accepted.send_module or accepted.send_files or source is not None or not self._early():
            sending = self._send(accepted.send_module, accepted.send_files)
            self._sending = asyncio.get_running_loop().create_task(sending)
        if detached:
            await self._taken()

    async def _answer(self) -> Accepted:
        found = await self._frames.receive(seconds=None)
        if found is None or found.kind is not Kind.MESSAGE:
            raise ProtocolError("the node does not answer the offer")
        return answer(found.data, Accepted)

    async def _send(self, module: bool, files: tuple[str, ...]) -> None:
        """Send module, files and input. Whatever fails here, the other direction says why."""
        try:
            if module:
                await self._parts(Kind.MODULE, self.task.module)
            for name in files:
                for packed in file_frames(name, self.task.inputs.get(name, b"")):
                    await self._frames.send(packed)
            if self._source is None:
                await self._parts(Kind.STDIN, b"" if self._early() else self.task.stdin)
            else:
                async for part in self._source:
                    # For the receipt: no module reads more than its limit.
                    if len(self._given) <= self.task.limits.stdin_bytes:
                        self._given += part
                    await self._parts(Kind.STDIN, part)
                await self._frames.send(pack(Kind.STDIN, b""))
        except PeerError:
            return
        except Exception:
            # The caller's input failed. Without its end, the job would wait for the rest of it.
            with contextlib.suppress(PeerError):
                await self._frames.stream.reset(Code.DONE)
            raise

    def _early(self) -> tuple[bytes, ...]:
        """Input that follows the offer at once."""
        stdin = self.task.stdin if self._source is None else b""
        return (pack(Kind.STDIN, stdin),) if 0 < len(stdin) <= EARLY_INPUT else ()

    async def _parts(self, kind: Kind, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            await self._frames.send(pack(kind, view[start : start + CHUNK]))

    async def _taken(self) -> None:
        """Wait until the node is sure to have a detached job."""
        try:
            progress = await self._patience.receive()
            if progress is None or progress.kind is not Kind.MESSAGE:
                raise ProtocolError("the node does not confirm that it has the job")
            answer(progress.data, Progress)
            await self._delivered()
        except PeerError as error:
            raise JobLostError(self.job, error.what) from error

    async def _delivered(self) -> None:
        """Wait until the node has all of the input, or wants no more of it: it finishes the stream then.

        To leave before would throw away what is on the way.
        """
        told = asyncio.ensure_future(self._patience.receive())
        try:
            if self._sending is not None:
                await asyncio.wait({self._sending, told}, return_when=asyncio.FIRST_COMPLETED)
                if self._sending.done():
                    self._sending.result()
                self._sending.cancel()
            with contextlib.suppress(PeerError):  # what the node has to say is in the other direction
                await self._frames.stream.finish()
            found = await told
        finally:
            told.cancel()
        if found is not None and found.kind is Kind.MESSAGE:
            said = messages.read(found.data, Rejected)
            raise ProtocolError(f"the node refuses the input: {said.reason.value} ({said.detail})")
        if found is not None:
            raise ProtocolError(f"the node sends {found.kind.name.lower()}")

    async def outputs(self) -> AsyncIterator[Output]:
        """The output, part by part as it comes, until the job ends. Then `result` has no output itself.

        Raises:
            JobLostError: the node, or the way to it, has ended.
            RejectedError: the node refuses what it was sent.
        """
        while self._ended is None:
            try:
                found = await self._patience.receive()
                if found is not None and found.kind is Kind.MESSAGE:
                    self._message(found.data)
            except PeerError as error:
                raise JobLostError(self.job, error.what) from error
            if found is None or found.kind in (Kind.MODULE, Kind.STDIN):
                raise JobLostError(self.job, "the node said nothing of its end")
            if found.kind in (Kind.STDOUT, Kind.STDERR):
                yield self._output(found.kind, found.data)
            elif found.kind is Kind.FILE:
                self._file(found.data)
            elif found.kind is Kind.RECEIPT:
                self._envelope = found.data

    def _file(self, data: bytes) -> None:
        name, part = file_part(data)
        if name not in self.asked.outputs:
            raise UntrueError(f"the node sends a file that job {self.job} was not asked for")
        self._files.setdefault(name, bytearray()).extend(part)
        if sum(map(len, self._files.values())) > self.task.limits.output_bytes + _SLACK:
            raise UntrueError(f"the node sends more output of job {self.job} than its limit allows")

    def _output(self, kind: Kind, data: bytes) -> Output:
        name: Literal["stdout", "stderr"] = "stdout" if kind is Kind.STDOUT else "stderr"
        self._passed[name].add(data)
        if sum(each.length for each in self._passed.values()) > self.task.limits.output_bytes + _SLACK:
            raise UntrueError(f"the node sends more output of job {self.job} than its limit allows")
        return Output(name, data)

    def _message(self, data: bytes) -> None:
        said = answer(data, Progress, messages.Result)
        match said:
            case Progress(state=state):
                self.state = state
            case messages.Result():
                self._ended, self.state = check_end(self.job, said), said.state

    def _check_given(self) -> None:
        """The caller's input may have failed in the middle: then the node had a part of it.

        Raises:
            Exception: what the input raised.
        """
        sending = self._sending
        if sending is not None and sending.done() and not sending.cancelled():
            sending.result()

    async def result(self) -> Result:
        """Wait for the end, and verify the receipt.

        Raises:
            NotRunError: the job did not run.
            JobLostError: whether it ran is not known.
            UntrueError: the receipt does not prove what was asked.
            RejectedError: the node refuses what it was sent.
        """
        collected = {"stdout": io.BytesIO(), "stderr": io.BytesIO()}
        try:
            async for name, data in self.outputs():
                collected[name].write(data)
        except PhaseError:
            self._check_given()
            raise
        finally:
            if self._sending is not None:
                self._sending.cancel()
        with contextlib.suppress(PeerError):
            await self._frames.stream.finish()
        assert self._ended is not None  # noqa: S101  the loop ends only then
        if self._ended.state is State.LOST:
            raise JobLostError(self.job, self._ended.detail or "the node ended while it had the job")
        if self._ended.state is not State.DONE:
            raise NotRunError(self._ended.state, self._ended.detail)
        if self._envelope is None:
            raise UntrueError(f"there is no receipt of job {self.job}: {self._ended.detail[:200]}")
        receipt = self._verified(self._envelope)
        return Result(
            status=receipt.status,
            stdout=collected["stdout"].getvalue(),
            stderr=collected["stderr"].getvalue(),
            receipt=receipt,
            envelope=self._envelope,
            node=self.node,
            files={name: bytes(data) for name, data in self._files.items()},
        )

    def _verified(self, envelope: bytes) -> Receipt:
        return check(
            envelope,
            node=self.node,
            job=self.job,
            files=self._files,
            asked=self.asked,
            stdin=self._given,
            stdout=Content.of(self._passed["stdout"].content()),
            stderr=Content.of(self._passed["stderr"].content()),
        )

    async def cancel(self) -> None:
        """Ask the node to end the job. What `result` returns or raises says whether it ran.

        Raises:
            PeerError: the network failed.
        """
        await self._frames.send(frame(Cancel()))

    async def leave(self) -> None:
        """Give up the stream. A job that is not detached is cancelled by its node."""
        if self._sending is not None:
            self._sending.cancel()
        await self._frames.stream.reset(Code.DONE)


def refusal(error: PeerError) -> RejectedError | None:
    """A connection or stream that the node refused unread, as the client's own error; None for another."""
    if isinstance(error, StreamResetError) and error.code == Code.BUSY:
        return RejectedError(Reason.QUOTA, "the node takes no more streams")
    if not isinstance(error, RefusedError):
        return None
    reason = Reason.NOT_AUTHORISED if error.code == Code.REFUSED else Reason.QUOTA
    return RejectedError(reason, error.what)
