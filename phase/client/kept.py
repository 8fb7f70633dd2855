"""Fetches the result that a node has kept."""

import io
from collections.abc import Awaitable, Callable

from phase.client.answers import answer
from phase.client.errors import JobLostError, NotKeptError, NotRunError, UntrueError
from phase.client.patience import Patience, check_end
from phase.client.task import Asked, Result
from phase.client.verify import check
from phase.jobs.flow import Counted
from phase.jobs.grant import MAX_FILES
from phase.jobs.receipt import Content
from phase.peer import messages
from phase.peer.framing import Frames, Kind, ProtocolError, file_part
from phase.peer.messages import Fetch, State, frame

#: Most bytes of output, and as many of files, that are taken of a job that this side does not know: as many
#: as nodes keep of one.
MAX_OUTPUT = 64 << 20


class _Arrived:
    """What has arrived of a result."""

    def __init__(self, job: str, most: int) -> None:
        self._job, self._most = job, most
        self.data = {Kind.STDOUT: io.BytesIO(), Kind.STDERR: io.BytesIO()}
        self._counted = {kind: Counted() for kind in self.data}
        self.files: dict[str, bytearray] = {}
        self.envelope: bytes | None = None
        self.ended: messages.Result | None = None

    def take(self, kind: Kind, data: bytes) -> None:
        if kind in self.data:
            self.data[kind].write(data)
            self._counted[kind].add(data)
            if sum(each.length for each in self._counted.values()) > self._most:
                raise UntrueError(f"the node sends more output of job {self._job} than its limit allows")
        elif kind is Kind.FILE:
            name, part = file_part(data)
            self.files.setdefault(name, bytearray()).extend(part)
            if len(self.files) > MAX_FILES or sum(map(len, self.files.values())) > self._most:
                raise UntrueError(f"the node sends more files of job {self._job} than its limits allow")
        elif kind is Kind.RECEIPT:
            self.envelope = data
        elif kind is Kind.MESSAGE:
            self.ended = check_end(self._job, answer(data, messages.Result))
        else:
            raise ProtocolError(f"the node sends {kind.name.lower()}")

    def content(self, kind: Kind) -> Content:
        return Content.of(self._counted[kind].content())


async def fetch(
    frames: Frames, node: str, job: str, asked: Asked | None, ask: Callable[[], Awaitable[State]]
) -> Result:
    """See `Client.fetch`."""
    await frames.send(frame(Fetch(job=job)))
    patience = Patience(frames, job, None if asked is None else asked.limits.wall_seconds, ask)
    arrived = _Arrived(job, MAX_OUTPUT if asked is None else asked.limits.output_bytes)
    while arrived.ended is None:
        found = await patience.receive()
        if found is None:
            raise JobLostError(job, "the node said nothing of its end")
        arrived.take(found.kind, found.data)
    await frames.stream.finish()
    if arrived.ended.state is State.LOST:
        raise JobLostError(job, arrived.ended.detail)
    if arrived.ended.state is not State.DONE:
        raise NotRunError(arrived.ended.state, arrived.ended.detail)
    if arrived.envelope is None:
        raise NotKeptError(job, arrived.ended.detail)
    receipt = check(
        arrived.envelope,
        node=node,
        job=job,
        stdout=arrived.content(Kind.STDOUT),
        stderr=arrived.content(Kind.STDERR),
        files=arrived.files,
        asked=asked,
    )
    return Result(
        status=receipt.status,
        stdout=arrived.data[Kind.STDOUT].getvalue(),
        stderr=arrived.data[Kind.STDERR].getvalue(),
        receipt=receipt,
        envelope=arrived.envelope,
        node=node,
        files={name: bytes(data) for name, data in arrived.files.items()},
    )
