"""One job that the node has taken, from its acceptance to its end."""

import asyncio
import os
import time
from collections.abc import Mapping

import msgspec

from phase.jobs.flow import Descriptor, Sink, Source, Streams
from phase.jobs.runner import Job
from phase.jobs.status import Status
from phase.node.kept import Spool
from phase.node.ledger import Known
from phase.node.streams import Feed, Taps
from phase.peer.messages import Offer, Request, Result, State


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended.

    Args:
        state: a final one.
        status: how the module ended, if it ran.
        receipt: for it: a DSSE envelope.
        detail: for people.
        files: that the module left, of those that were asked for, by their names.
    """

    state: State
    status: Status | None = None
    receipt: bytes | None = None
    detail: str = ""
    files: Mapping[str, bytes] = msgspec.field(default_factory=dict)


class Work:
    """One job.

    Args:
        client: key of the client, hex.
        offer: as the client made it.
        known: what the ledger has of it.
    """

    def __init__(self, client: str, offer: Offer, known: Known) -> None:
        self.client, self.offer, self.known = client, offer, known
        self.request = Request()
        self.module = b""
        self.stdin = b""
        self.inputs: dict[str, bytes] = {}
        #: Of input and files that are in memory for this job alone.
        self.own_bytes = 0
        self.feed: Feed | None = None
        self.taps: Taps | None = None
        self.spool: Spool | None = None
        self.accepted = time.monotonic()
        self.started: float | None = None
        #: Set when it begins to run, or ends without.
        self.moving = asyncio.Event()
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.cancelled = False
        #: Why it was ended, if its client did not ask for that.
        self.why = ""
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def job(self) -> Job:
        """As the runner wants it."""
        return Job(
            self.module,
            args=self.request.args,
            stdin=self.stdin,
            env=self.request.env,
            limits=self.offer.limits,
            seed=self.offer.seed,
            inputs=self.inputs,
            outputs=self.offer.outputs,
        )

    def streams(self) -> Streams:
        """Where its input comes from, and where its output goes."""
        source: Source | None = self.feed
        stdout: Sink | None = None
        stderr: Sink | None = None
        if self.taps is not None:
            stdout, stderr = self.taps.stdout, self.taps.stderr
        elif self.spool is not None:
            stdout, stderr = Descriptor(self.spool.stdout), Descriptor(self.spool.stderr)
        return Streams(stdin=source, stdout=stdout, stderr=stderr, stop=self._stop, told=self.taps)

    def stop(self) -> None:
        """Have it end as soon as it can."""
        self.cancelled = True
        if self._stop >= 0:
            os.eventfd_write(self._stop, 1)

    def end(self, ending: Ending) -> None:
        """Tell everybody who waits for it that it has ended, and free what it had."""
        for part in (self.feed, self.taps, self.spool):
            if part is not None:
                part.close()
        os.close(self._stop)
        self._stop = -1
        self.moving.set()
        if not self.ended.done():
            self.ended.set_result(ending)

    async def result(self) -> tuple[Ending, Result]:
        """Wait for its end."""
        ending = await asyncio.shield(self.ended)
        waited = (self.started or time.monotonic()) - self.accepted
        said = Result(
            job=self.offer.job,
            state=ending.state,
            status=ending.status,
            detail=ending.detail,
            waited_ms=round(max(waited, 0) * 1000, 3),
        )
        return ending, said
