"""Frames and messages of jobs, both ways; the journal; requests by HTTP."""

import asyncio
import hashlib
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from phase.client import ClientError, Task
from phase.client.submission import Submission
from phase.foreign import MalformedError, read_json
from phase.identity import Identity
from phase.jobs.flow import Content, Streams
from phase.jobs.receipt import Content as Named
from phase.jobs.runner import Execution, Job
from phase.jobs.status import Exited
from phase.node import journal, requests
from phase.node.admission import Admission
from phase.node.arriving import check_words
from phase.node.capacity import Capacity
from phase.node.daemon import Daemon
from phase.node.errors import RefusedError
from phase.node.gateway import Asked
from phase.node.ledger import Ledger
from phase.peer import allowed, messages
from phase.peer.errors import PeerError
from phase.peer.framing import MAX_RECEIPT, Frames, Kind, ProtocolError, file_frames, pack
from phase.peer.messages import Cancel, Describe, Fetch, List, Offer, Request, State, StatusAsked, frame
from phase.peer.transport import Path as Way
from tests.fuzz.envelopes import NODE
from tests.fuzz.publishing import short

CLIENT = Identity.from_seed(b"\2" * 32)
_MODULE = b"\0asm\1\0\0\0"
_EMPTY = hashlib.sha256(b"").hexdigest()
OFFER = Offer(job="a", module=Named(hashlib.sha256(_MODULE).hexdigest(), len(_MODULE)), input=5)
#: With files, which are kept until their client comes for them.
FILED = Offer(
    job="b",
    module=OFFER.module,
    seed=1,
    detached=True,
    inputs={"in": Named(hashlib.sha256(b"Hello").hexdigest(), 5), "none": Named(_EMPTY, 0)},
    outputs=("out",),
)
ASKED = (OFFER, FILED, Fetch(job="a"), StatusAsked(job="a"), Cancel(job="a"), List(), Describe())
SAID = (
    messages.Accepted(send_module=True, waiting=2),
    messages.Rejected(reason=messages.Reason.QUEUE_FULL, detail="full"),
    messages.Progress(state=messages.State.RUNNING),
    messages.Result(job="a", state=messages.State.DONE, status=Exited(0)),
    messages.JobStatus(job="a", state=messages.State.LOST, module="0" * 64, accepted=1.0),
    messages.Jobs(jobs=()),
    messages.Description(
        node="0" * 64,
        arch="x86_64",
        runtimes=("wasi-preview1",),
        engine="wasmtime 1",
        processors=2,
        memory_bytes=1 << 30,
        slots=2,
        free=1,
        queued=0,
        queue=64,
        version="1",
    ),
)
EVENTS = (
    journal.Taken("0" * 64, "a", "1" * 64, 1.0, True),
    journal.Ended(client="0" * 64, job="a", state=messages.State.DONE, at=2.0, status=Exited(0)),
)


class Wire:
    """A stream that brings some bytes and takes all; as `phase.peer.transport.Stream`."""

    def __init__(self, data: bytes) -> None:
        self._left = data
        self.sent = 0

    async def send(self, data: bytes) -> None:
        self.sent += len(data)

    async def receive(self, size: int) -> bytes:
        data, self._left = self._left[:size], self._left[size:]
        return data

    async def finish(self) -> None:
        return

    async def reset(self, code: int) -> None:
        self._left = b""


def question(data: bytes) -> None:
    """What a client asks."""
    _same(data, messages.Question)


def request(data: bytes) -> None:
    """What follows an offer."""
    try:
        check_words(messages.read(data, Request))
    except (ProtocolError, RefusedError) as error:
        short(error)


def answer(data: bytes) -> None:
    """What a node says."""
    _same(data, messages.Answer)


def _same(data: bytes, kind: Any) -> None:
    try:
        found: msgspec.Struct = messages.read(data, kind)
    except ProtocolError as error:
        short(error)
    else:
        assert messages.read(msgspec.json.encode(found), kind) == found


def frames(data: bytes) -> None:
    """The frames of a stream."""

    async def read() -> None:
        found = Frames(Wire(data))
        length = 0
        while (each := await found.receive()) is not None:
            assert len(each.data) <= (MAX_RECEIPT if each.kind is Kind.RECEIPT else 1 << 20)
            length += len(pack(each.kind, each.data))
        assert length == len(data)

    try:
        asyncio.run(read())
    except ProtocolError as error:
        short(error)


class _Runner:
    """Runs nothing."""

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        nothing = Content(_EMPTY, 0)
        sha256 = hashlib.sha256(job.module).hexdigest()
        return Execution(Exited(0), b"", b"", 1, 1, 1.0, 0.0, sha256, nothing, nothing, nothing)


class _Connection:
    """Brings one stream."""

    peer = CLIENT.public_key

    def __init__(self, stream: Wire) -> None:
        self._streams = [stream]
        self._ended = asyncio.Event()

    async def open(self) -> Wire:
        raise PeerError("it is the client who opens")

    async def accept(self) -> Wire:
        if self._streams:
            return self._streams.pop()
        await asyncio.sleep(0.02)
        raise PeerError("the client is gone")

    def path(self) -> Way | None:
        return None

    async def closed(self) -> str:
        return "closed"

    async def close(self, code: int = 0, reason: str = "") -> None:
        return


def node(data: bytes) -> None:
    """All that an allowed client sends on a stream; nothing is left of it."""

    async def serve() -> None:
        with tempfile.TemporaryDirectory() as name:
            daemon = Daemon(
                NODE,
                Path(name),
                capacity=Capacity(slots=1),
                admission=Admission([CLIENT.public_key]),
                runner=_Runner(),
            )
            async with daemon:
                await daemon.serving.serve(_Connection(Wire(data)))
                await asyncio.sleep(0)
            assert daemon.scheduler.queued == daemon.scheduler.running == 0
            assert Counter({each: n for each, n in daemon.tasks.failures.items() if n}) == Counter()

    asyncio.run(serve())


def client(data: bytes) -> None:
    """All that a node sends on the stream of a job: a receipt that does not hold is never a result."""

    async def gone() -> State:
        raise PeerError("the stream has ended")

    async def take() -> None:
        task = Task(module=_MODULE)
        made = Submission(
            Wire(data), task, node=NODE.public_key, job="a", nonce="b", client=CLIENT.public_key, ask=gone
        )
        await made.offer()
        await made.result()

    try:
        asyncio.run(take())
    except (ClientError, PeerError) as error:
        short(error)
    else:
        raise AssertionError("no fuzzer can sign a receipt")


def books(data: bytes) -> None:
    """A journal that was damaged; what is read of it can be written again."""
    events, _ = journal.parse(data)
    ledger = Ledger.replayed(events)
    again, damaged = journal.parse(b"".join(map(journal.line, ledger.events())))
    assert damaged == 0
    assert list(Ledger.replayed(again).events()) == list(ledger.events())


def gateway_job(data: bytes) -> None:
    """A job by HTTP."""
    try:
        found = read_json(data, Asked)
    except MalformedError:
        return
    else:
        assert len(found.job) <= 128


def signed_request(data: bytes) -> None:
    """The header fields of a request, each on a line."""
    names = ("Phase-Key", "Phase-Time", "Phase-Nonce", "Phase-Signature")
    fields = data.decode("latin-1").split("\n")
    checker = requests.Checker(NODE.public_key, Admission(anyone=True), clock=lambda: 1e9)
    try:
        checker.check("GET", "/", dict(zip(names, fields, strict=False)), _EMPTY)
    except RefusedError as error:
        short(error)


def streams() -> tuple[bytes, ...]:
    """What clients send."""
    asked = frame(OFFER) + frame(Request(args=("a",)))
    module = pack(Kind.STDIN, b"Hello") + pack(Kind.MODULE, _MODULE)
    filed = frame(FILED) + frame(Request()) + pack(Kind.MODULE, _MODULE)
    filed += b"".join((*file_frames("in", b"Hello"), *file_frames("none", b"")))
    return (asked + module, asked + module + frame(Cancel()), filed, *(frame(each) for each in ASKED[2:]))


def replies() -> tuple[bytes, ...]:
    """What nodes send."""
    begun = frame(SAID[0])
    ended = pack(Kind.RECEIPT, b"{}") + frame(SAID[3])
    output = pack(Kind.STDOUT, b"x" * 9) + pack(Kind.STDERR, b"y")
    files = b"".join(file_frames("out", b"Hello"))
    return (frame(SAID[1]), begun + frame(SAID[2]) + output + files + ended, begun)


def key_file(data: bytes) -> None:
    """A file of keys, whoever has written it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "keys"
        path.write_bytes(data)
        try:
            found = allowed.read_keys(path)
        except PeerError as error:
            short(error)
        else:
            assert all(allowed.is_key(each) for each in found)


def headers() -> bytes:
    """Of a request that is signed."""
    at, nonce = "1000000000", "0" * 32
    covered = requests.text(
        "GET", "/", node=NODE.public_key, key=CLIENT.public_key, at=at, nonce=nonce, sha256=_EMPTY
    )
    return "\n".join((CLIENT.public_key, at, nonce, CLIENT.sign(covered).hex())).encode()
