"""The node's side of the job protocol: what it answers on the streams of its clients."""

import asyncio
import base64
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from typing import Any

from phase.errors import printable
from phase.foreign import read_json
from phase.jobs import location
from phase.jobs.receipt import Content, Statement
from phase.node import arriving, capacity
from phase.node.blobs import Blobs
from phase.node.errors import RefusedError, StateError, as_refusal
from phase.node.kept import Name
from phase.node.scheduler import Scheduler
from phase.node.streams import Feed, Output, Taps
from phase.node.work import Work
from phase.peer.errors import PeerError
from phase.peer.framing import (
    CHUNK,
    SECONDS,
    Frames,
    Kind,
    ProtocolError,
    file_frame,
    file_frames,
    pack,
)
from phase.peer.messages import (
    EARLY_INPUT,
    MAX_OFFER,
    Accepted,
    Answer,
    Cancel,
    Describe,
    Description,
    Fetch,
    Jobs,
    JobStatus,
    List,
    Offer,
    Progress,
    Question,
    Reason,
    Rejected,
    Result,
    State,
    StatusAsked,
    frame,
    read,
)
from phase.peer.transport import Code, Connection, Stream
from phase.provider.background import Background

_log = logging.getLogger(__name__)
_OUTPUTS: tuple[tuple[Name, Kind], ...] = (("stdout", Kind.STDOUT), ("stderr", Kind.STDERR))
#: Streams of one connection at a time.
STREAMS = 64
#: Seconds that a client may leave bytes unread.
SEND_SECONDS = 60.0
#: Seconds for a client to finish its side of a stream that is answered: what is on its way to it is thrown
#: away then. A transport gives a silent peer less time, so one that is back by then gets all of it.
CLOSE_SECONDS = 30.0
#: Seconds for which what is said of a job waits for more to say: most jobs end sooner.
GATHER_SECONDS = 0.01


class Serving:
    """Answers clients that a transport has let in.

    Args:
        scheduler: the node's core.
        blobs: modules that are here.
        node: this node's key.
        tasks: runs what each connection and stream needs.
    """

    def __init__(self, scheduler: Scheduler, blobs: Blobs, node: str, tasks: Background) -> None:
        self._scheduler, self._blobs, self._tasks = scheduler, blobs, tasks
        #: What clients have brought, and bring.
        self.brought = arriving.Modules(blobs, scheduler.disk)
        #: This node's key.
        self.node = node
        #: Connections and streams that are open, and what clients did wrong.
        self.connections = self.streams = 0
        self.errors: Counter[str] = Counter()
        #: Those whose client waits for the end of a job.
        self._waited: set[asyncio.Task[Any]] = set()
        #: Connections that were refused, by reason.
        self.strangers: Mapping[str, int] = {}

    async def serve(self, connection: Connection) -> None:
        """Answer on every stream of a connection, until it is over."""
        self.connections += 1
        mine: set[asyncio.Task[None]] = set()
        try:
            while True:
                stream = await connection.accept()
                if len(mine) >= STREAMS:
                    await stream.reset(Code.BUSY)
                    continue
                task = self._tasks.once("stream of a client", self._stream(connection.peer, stream))
                mine.add(task)
                task.add_done_callback(mine.discard)
        except PeerError as error:
            _log.info("client %s has left: %s", connection.peer[:16], printable(str(error)))
        finally:
            self.connections -= 1
            for task in mine:
                task.cancel()  # it drops the job of a client that has left, unless that is detached

    async def _stream(self, client: str, stream: Stream) -> None:
        frames = Frames(stream)
        self.streams += 1
        try:
            await self._answered(client, frames)
        except ProtocolError as error:
            self.errors["protocol"] += 1
            _log.warning("client %s: %s", client[:16], printable(str(error)))
            await self._last(frames, Rejected(reason=Reason.INVALID_REQUEST, detail=error.what[:500]))
        except (RefusedError, StateError, OSError) as error:
            level = logging.INFO if isinstance(error, RefusedError) else logging.ERROR
            _log.log(level, "client %s is refused: %s", client[:16], printable(str(error)))
            said = as_refusal(error)
            await self._last(frames, Rejected(reason=said.reason, detail=said.detail[:500]))
        except PeerError as error:
            _log.info("a stream of client %s is over: %s", client[:16], printable(str(error)))
        finally:
            self.streams -= 1
            if not frames.ended:
                await _given_back(stream)

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  every stream has one
        self._waited.add(task)
        try:
            yield
        finally:
            self._waited.discard(task)

    async def told(self, seconds: float) -> None:
        """Wait until all clients that wait for the ends of jobs have heard of them.

        Args:
            seconds: at most; a client may be slow, or its job may not end.
        """
        if self._waited:
            await asyncio.wait(set(self._waited), timeout=seconds)

    async def _last(self, frames: Frames, answer: Answer) -> None:
        with contextlib.suppress(PeerError):
            await self._send(frames, frame(answer))
            await frames.stream.finish()

    async def _send(self, frames: Frames, *packed: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await frames.send(*packed)
        except TimeoutError:
            await frames.stream.reset(Code.SILENT)
            raise ProtocolError(f"the client read nothing for {SEND_SECONDS:g} s") from None

    async def _answered(self, client: str, frames: Frames) -> None:
        first = await frames.receive(message=MAX_OFFER)
        if first is None:
            return
        if first.kind is not Kind.MESSAGE:
            raise ProtocolError("a stream begins with a message")
        question: Question = read(first.data, Question)
        match question:
            case Offer():
                await self._offer(client, frames, question)
            case Fetch(job=job):
                with self._waiting():
                    await self._fetch(client, frames, job)
            case _:
                await self._send(frames, frame(await self._told(client, question)))
        if not isinstance(question, Offer) or question.detached:
            await frames.stream.finish()

    async def _told(self, client: str, question: Question) -> Answer:
        """The answer to a question that has one message as its answer."""
        match question:
            case StatusAsked(job=job):
                return self.status(client, job)
            case Cancel(job=str(job)):
                await self._scheduler.cancel(client, job)
                return self.status(client, job)
            case List():
                return self.jobs(client)
            case Describe():
                return self.describe()
            case _:
                raise ProtocolError("a cancel of no job")

    def status(self, client: str, job: str) -> JobStatus:
        """How far a job of a client is.

        Raises:
            RefusedError: there is none.
        """
        known = self._scheduler.ledger.find(client, job)
        return known.said(kept=self._scheduler.kept.has(client, job))

    def jobs(self, client: str) -> Jobs:
        """The newest jobs of a client."""
        kept = self._scheduler.kept
        found = self._scheduler.ledger.jobs(client)
        return Jobs(jobs=tuple(each.said(kept=kept.has(client, each.taken.job)) for each in found))

    def describe(self) -> Description:
        """What this node is, and what is free."""
        of = self._scheduler.capacity
        return Description(
            node=self.node,
            arch=capacity.machine(),
            runtimes=capacity.RUNTIMES,
            engine=f"wasmtime {location.VERSION}",
            processors=len(os.sched_getaffinity(0)),
            memory_bytes=of.memory_bytes,
            slots=of.slots,
            free=max(of.slots - self._scheduler.running, 0),
            queued=max(self._scheduler.queued, 0),
            queue=of.queue,
            version=_version(),
        )

    async def _offer(self, client: str, frames: Frames, offer: Offer) -> None:
        work = self._scheduler.admit(client, offer)
        queued = False
        try:
            work.request = await arriving.request(frames)
            if offer.input is not None and offer.input <= EARLY_INPUT:
                work.stdin = await arriving.whole_input(frames, offer.input)
            await self._prepare(work, frames)
            await self._scheduler.enqueue(work)
            queued = True
        finally:
            if not queued and not work.ended.done():
                await self._scheduler.withdraw(work)
        _log.info("job %s of client %s is taken", work.offer.job, client[:16])
        with self._waiting():
            if offer.detached:
                await self._detached(work, frames)
            else:
                await self._attached(work, frames)

    async def _prepare(self, work: Work, frames: Frames) -> None:
        """Have the module of a job, its files, and its input if it needs all of it before it starts."""
        offer = work.offer
        module = await self.brought.find(work.client, offer.module.sha256)
        lacking = tuple(
            name for name, each in offer.inputs.items() if not self._blobs.has(work.client, each.sha256)
        )
        waiting = max(self._scheduler.queued - 1, 0)
        accepted = frame(Accepted(send_module=module is None, send_files=lacking, waiting=waiting))
        if module is None:
            async with self.brought.coming(work.client, offer):
                await self._send(frames, accepted)
                module = await self.brought.receive(work.client, frames, offer)
        elif len(module) != offer.module.length:
            raise ProtocolError(f"the module of this hash has {len(module)} bytes")
        else:
            frames.later(accepted)
        if lacking or offer.detached or not _early(offer):
            await self._send(frames)
        work.module = module
        for name in lacking:
            data = await arriving.file(frames, name, offer.inputs[name])
            await self.brought.keep(work.client, offer.inputs[name].sha256, data)
        for name, each in offer.inputs.items():
            work.inputs[name] = await self._blob(work.client, name, each)
        await self._connect(work, frames)

    async def _connect(self, work: Work, frames: Frames) -> None:
        """Have a job's input, or a way for it, and a way for its output."""
        offer = work.offer
        if offer.detached:
            await self._scheduler.begin(work)
        else:
            work.taps = Taps()
        if _early(offer):
            return
        if offer.input is not None and offer.seed is not None:
            work.stdin = await arriving.whole_input(frames, offer.input)
        else:
            work.feed = Feed()

    async def _blob(self, client: str, name: str, offered: Content) -> bytes:
        data = await self.brought.blob(client, offered.sha256)
        if data is None:
            raise RefusedError(Reason.INSUFFICIENT_RESOURCES, "this node has no room for the input files")
        # The job was admitted by the length that was said.
        if len(data) != offered.length:
            raise ProtocolError(f"the input {name} of this hash has {len(data)} bytes")
        return data

    async def _detached(self, work: Work, frames: Frames) -> None:
        """Take the input of a job that goes on without its client, until it has all or the job has ended."""
        feeding: asyncio.Future[Any] = asyncio.ensure_future(self._feed(work, frames))
        try:
            await self._send(frames, frame(Progress(state=work.known.state)))
            await asyncio.wait({feeding, work.ended}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done():
                feeding.result()
        except (PeerError, asyncio.CancelledError):
            if work.feed is not None:
                await self._scheduler.drop(work, "its input did not arrive whole")
            raise
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})

    async def _attached(self, work: Work, frames: Frames) -> None:
        """Carry input and output until the job ends, or the client leaves."""
        inward = self._tasks.once("input of a job", self._inward(work, frames))
        try:
            await self._outward(work, frames)
            await frames.stream.finish()
            await asyncio.wait([inward], timeout=CLOSE_SECONDS)
        finally:
            if not inward.done():
                await frames.stream.reset(Code.DONE)
            await self._scheduler.drop(work)

    async def _inward(self, work: Work, frames: Frames) -> None:
        try:
            await self._feed(work, frames)
        except PeerError as error:
            # It may have left just after its result; then there is nothing to end.
            if not work.ended.done():
                _log.info("job %s is dropped: %s", work.offer.job, printable(str(error)))
            await self._scheduler.drop(work)

    async def _feed(self, work: Work, frames: Frames) -> None:
        """Take input, and the word to cancel, until the client has finished."""
        seconds = work.offer.limits.wall_seconds + SECONDS if work.offer.detached else None
        given = 0
        while (found := await frames.receive(seconds=seconds, message=MAX_OFFER)) is not None:
            if found.kind is Kind.MESSAGE:
                read(found.data, Cancel)
                await self._scheduler.drop(work)
            elif found.kind is Kind.STDIN and work.feed is not None:
                given += len(found.data)
                await _give(work, work.feed, found.data, given)
            elif found.kind is not Kind.STDIN:
                raise ProtocolError("a job takes input now, and nothing else")
        if work.feed is not None and not work.ended.done():
            if work.offer.input is not None and given < work.offer.input:
                raise ProtocolError(f"the input ended after {given} of {work.offer.input} bytes")
            work.feed.end()

    async def _outward(self, work: Work, frames: Frames) -> None:
        if work.started is None and self._scheduler.queued > 1:
            await self._send(frames)
            await work.moving.wait()
            frames.later(frame(Progress(state=State.RUNNING)))
        assert work.taps is not None  # noqa: S101  `_prepare` has made them
        try:
            while (out := await self._gathered(work.taps, frames)) is not None:
                frames.later(pack(Kind.STDOUT if out[0] == "stdout" else Kind.STDERR, out[1]))
                if frames.unsent > CHUNK:
                    await self._send(frames)
        except PeerError:
            work.taps.leave()
            raise
        ending, result = await work.result()
        for name, data in ending.files.items():
            for packed in file_frames(name, data):
                await self._send(frames, packed)
        await self._send(frames, *_ended(ending.receipt, result))

    async def _gathered(self, taps: Taps, frames: Frames) -> Output | None:
        """The next output. What is to be sent is sent, if it does not come soon."""
        if frames.unsent and not taps.ready:
            try:
                async with asyncio.timeout(GATHER_SECONDS):
                    return await taps.take()
            except TimeoutError:
                await self._send(frames)
        return await taps.take()

    async def _fetch(self, client: str, frames: Frames, job: str) -> None:
        known = self._scheduler.ledger.find(client, job)
        work = self._scheduler.find(client, job)
        if work is not None:
            await asyncio.shield(work.ended)
        kept = self._scheduler.kept
        receipt = await self._scheduler.disk.run(kept.receipt, client, job)
        if receipt is not None:
            for name, kind in _OUTPUTS:
                await self._file(frames, kept.output(client, job, name), partial(pack, kind))
            for file in left_files(receipt):
                await self._file(frames, kept.file(client, job, file), partial(file_frame, file), least=1)
        detail = known.detail
        if receipt is None and known.state is State.DONE:
            detail = "its result is not kept"
        said = Result(job=job, state=known.state, status=known.status, detail=detail)
        await self._send(frames, *_ended(receipt, said))

    async def _file(
        self, frames: Frames, descriptor: int | None, packed: Callable[[bytes], bytes], least: int = 0
    ) -> None:
        """Send a file in frames, at least so many."""
        if descriptor is None:
            return
        with open(descriptor, "rb") as file:
            while (part := await self._scheduler.disk.run(file.read, CHUNK)) or least > 0:
                least -= 1
                await self._send(frames, packed(part))


def _early(offer: Offer) -> bool:
    """Whether the input comes with the request."""
    return offer.input is not None and offer.input <= EARLY_INPUT


async def _give(work: Work, feed: Feed, data: bytes, given: int) -> None:
    """Give a job input. It ends with an empty part, or where the offer said that it would."""
    expected = work.offer.input
    if expected is not None and given > expected:
        raise ProtocolError(f"the input has more than its {expected} bytes")
    if not work.ended.done():
        await feed.give(data)
        if not data or given == expected:
            feed.end()


async def _given_back(stream: Stream) -> None:
    """Wait until the client has finished, too: else the stream counts against its limit for ever."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            while await stream.receive(CHUNK):
                pass
    except (PeerError, TimeoutError):
        await stream.reset(Code.DONE)


def _version() -> str:
    try:
        return metadata.version("phase")
    except metadata.PackageNotFoundError:
        return "unknown"


def left_files(receipt: bytes) -> tuple[str, ...]:
    """The names of the files of which a receipt of this node tells."""
    body = read_json(receipt, dict[str, Any])["payload"]
    statement = read_json(base64.b64decode(body), Statement)
    return tuple(statement.predicate.outputs)


def _ended(receipt: bytes | None, result: Result) -> list[bytes]:
    """The frames that end a job."""
    before = [] if receipt is None else [pack(Kind.RECEIPT, receipt)]
    return [*before, frame(result)]
