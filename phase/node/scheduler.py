"""The node's core, without a network: takes jobs, runs them in slots, and keeps the books.

What the disk may make slow is done in threads: the thread of a job also keeps its result and puts its end on
record.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol

from phase.errors import PhaseError
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.errors import JobError, JobRefusedError
from phase.jobs.flow import Streams
from phase.jobs.runner import Execution, Job
from phase.jobs.status import Killed, Rejected, Status, Trapped
from phase.node.capacity import Capacity
from phase.node.disk import Disk
from phase.node.errors import RefusedError, StateError
from phase.node.fair import FairQueue
from phase.node.held import Held
from phase.node.journal import Ended, Event, Journal, Taken
from phase.node.kept import Kept, Spool
from phase.node.ledger import Ledger
from phase.node.work import Ending, Work
from phase.peer.messages import EARLY_INPUT, Offer, Reason, State

_log = logging.getLogger(__name__)
P = ParamSpec("P")
#: Seconds that a clean stop gives to the jobs that run.
STOP_SECONDS = 20.0
#: Jobs that may be offered and not complete, of all clients: the queue has no place for them yet.
MAX_INCOMPLETE = 1024


class Runner(Protocol):
    """What runs jobs: some at a time, each in a thread of the caller."""

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        """Run one to its end.

        Raises:
            JobError: it cannot be run.
        """


class Scheduler:
    """Everything that a node has taken.

    Args:
        identity: signs receipts.
        capacity: limits.
        journal: open; its events have been read into the ledger.
        kept: results of detached jobs.
        runner: what runs jobs.
    """

    def __init__(
        self, identity: Identity, capacity: Capacity, journal: Journal, kept: Kept, runner: Runner
    ) -> None:
        self.capacity, self.kept = capacity, kept
        self.ledger = Ledger.replayed(journal.events)
        self._identity, self._journal, self._runner = identity, journal, runner
        self._queue: FairQueue[Work] = FairQueue()
        self._works: dict[tuple[str, str], Work] = {}
        self._of: Counter[str] = Counter()
        self._held = Held()
        self._incomplete: set[Work] = set()
        #: Ends that the journal has and the ledger has not yet.
        self._recording: list[Ended] = []
        # As many may wait for the disk to take the end of a job while others run in the slots.
        self._threads = ThreadPoolExecutor(2 * capacity.slots, thread_name_prefix="phase-job")
        self._may_settle = threading.BoundedSemaphore(capacity.slots)
        #: Threads for files.
        self.disk = Disk()
        self._finishing: set[asyncio.Task[None]] = set()
        #: Jobs in slots, and those that have given up theirs and wait for the disk.
        self.running = self.settling = 0
        self.stopping = self._stopped = False
        #: Ended jobs by state, and refusals by reason.
        self.ended: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._report_lost()

    @property
    def queued(self) -> int:
        """Jobs that wait, those included whose module is on its way."""
        return len(self._works) - self.running - self.settling

    def admit(self, client: str, offer: Offer, *, whole: bool = False) -> Work:
        """Take a job, or refuse it. The caller must `enqueue` or `withdraw` it.

        Args:
            client: who offers it.
            offer: the job.
            whole: whether all of its input is in memory, however it is offered.

        Raises:
            RefusedError: the node does not take it.
            OSError: it has no descriptor for it.
        """
        whole = whole or offer.seed is not None or (offer.input or 0) <= EARLY_INPUT
        own = (offer.input or 0) * whole + sum(each.length for each in offer.inputs.values())
        try:
            self._check(client, offer)
            self._held.take(client, offer.module, own)
        except RefusedError as error:
            self.refused[error.reason.value] += 1
            raise
        taken = Taken(client, offer.job, offer.module.sha256, time.time(), offer.detached)
        try:
            work = Work(client, offer, self.ledger.take(taken))
        except OSError:
            self.ledger.forget(taken)
            self._held.give_back(client, offer.module, own)
            raise
        work.own_bytes = own
        self._incomplete.add(work)
        self._works[client, offer.job] = work
        self._of[client] += 1
        return work

    def _check(self, client: str, offer: Offer) -> None:
        if self.stopping:
            raise RefusedError(Reason.STOPPING, "this node stops")
        self.capacity.check(offer)
        self.ledger.check_new(client, offer.job)
        if self._of[client] >= self.capacity.client_jobs:
            raise RefusedError(
                Reason.QUOTA, f"this client has {self._of[client]} jobs here, as many as it may have"
            )
        self._check_queue()
        if len(self._incomplete) >= MAX_INCOMPLETE:
            raise RefusedError(Reason.QUEUE_FULL, "too many jobs wait for their modules")

    def _check_queue(self) -> None:
        """Refuse what would wait behind too many. Jobs whose module is on its way keep out nobody."""
        if len(self._works) - len(self._incomplete) >= self.capacity.slots + self.capacity.queue:
            raise RefusedError(Reason.QUEUE_FULL, f"{self.queued} jobs wait, as many as may")

    async def begin(self, work: Work) -> None:
        """Have a place for the result of a detached job.

        Raises:
            OSError: the disk has no room.
        """
        work.spool = await self.disk.made(self.kept.begin, Spool.close, work.client, work.offer.job)

    async def withdraw(self, work: Work) -> None:
        """Forget a job that never was complete: the client may offer it again."""
        # A cancelled caller forgets it all the same.
        await self._whole(self._withdraw(work))

    async def _withdraw(self, work: Work) -> None:
        work.end(Ending(state=State.CANCELLED, detail="it never was complete"))
        if work.spool is not None:
            await self.disk.run(self.kept.drop, work.client, work.offer.job)
        self.ledger.forget(work.known.taken)
        self._leave(work)

    async def enqueue(self, work: Work) -> None:
        """Have a job run that is complete but for streamed input. Once this returns, a detached one is safe.

        Raises:
            StateError: the journal cannot be written; the job is forgotten.
            RefusedError: meanwhile too many others wait.
        """
        self._check_queue()
        self._incomplete.discard(work)
        # What is counted once is there once.
        work.module = self._held.shared(work.offer.module, work.module)
        try:
            self._journal.append(work.known.taken)
            if work.offer.detached:
                await self._journal.sync()
        except (StateError, asyncio.CancelledError):
            await self._whole(self._unsay(work))
            raise
        if work.cancelled or self.stopping:
            state = State.CANCELLED if work.cancelled else State.RETURNED
            await self._finish(work, Ending(state=state))
            return
        self._queue.put(work.client, work)

    async def _unsay(self, work: Work) -> None:
        """The client is told that the job is not taken: a line that says so must not be the last word."""
        ended = _ended(work, Ending(state=State.CANCELLED, detail="it was not taken"))
        with contextlib.suppress(StateError):  # what cannot be written is not there either
            await self.disk.run(self._journal.record, ended)
        await self._withdraw(work)

    def find(self, client: str, job: str) -> Work | None:
        """A job that has not ended."""
        return self._works.get((client, job))

    async def cancel(self, client: str, job: str) -> None:
        """End a job, whatever it does. One that has ended stays as it is.

        Raises:
            RefusedError: there is no such job.
        """
        self.ledger.find(client, job)
        work = self.find(client, job)
        if work is not None:
            await self.drop(work)

    async def drop(self, work: Work, why: str = "") -> None:
        """End a job, whatever it does.

        Args:
            work: the job.
            why: for its client, if that did not ask for it.
        """
        if work.ended.done():
            return
        work.why = why
        work.stop()
        if self._queue.remove(work.client, work):
            await self._finish(work, Ending(state=State.CANCELLED, detail=why))

    async def work(self) -> None:
        """Run one job after the other, for ever: one slot."""
        while True:
            await self._run(await self._queue.get())

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Take no more jobs, hand back those that wait, and let those that run end. May be called twice.

        Args:
            seconds: for those that run; then they are ended, and their receipts say so.
        """
        self.stopping = True
        if self._stopped:
            return
        returned = Ending(state=State.RETURNED, detail="this node stops")
        await asyncio.gather(*(self._finish(work, returned) for work in self._queue.drain()))
        running = [work.ended for work in self._works.values() if work.started is not None]
        if running:
            await asyncio.wait(running, timeout=seconds)
        # Those that are not complete are handed back, too, once they are: nobody has cancelled them.
        for work in set(self._works.values()) - self._incomplete:
            work.stop()
        left = [work.ended for work in self._works.values() if work.started is not None]
        if left:
            await asyncio.wait(left, timeout=5.0)
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=5.0)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._stopped = True

    def close(self) -> None:
        """Read and write nothing more."""
        self.disk.close()

    async def _run(self, work: Work) -> None:
        if work.ended.done():
            return
        work.started = time.monotonic()
        work.known.state = State.RUNNING
        work.moving.set()
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._threads.submit(self._execute, work, free)
        self.running += 1
        await free  # whoever is cancelled here leaves the job to its end
        await self._compact()

    def _execute(self, work: Work, free: "asyncio.Future[None]") -> None:
        """Run a job, sign for it and settle it, in a thread. Whatever goes wrong, the job has an end.

        Args:
            work: the job.
            free: set once its slot is free: at its end, or, where other jobs wait, once it has run.
        """
        try:
            ending = self._signed(work)
        except Exception as error:
            _log.exception("the job %s of %s", work.offer.job, work.client)
            ending = Ending(state=State.LOST, detail=f"a fault of the node: {error!r}"[:500])
        early = self._queue.waiting and self._may_settle.acquire(blocking=False)
        if early:
            _call(free, self._give_up_slot, free)
        found: tuple[Ending, Ended] | BaseException
        try:
            found = self._settled(work, ending)
        except BaseException as error:
            found = error
        if early:
            self._may_settle.release()
        _call(free, self._landed, work, found, free, early)

    def _give_up_slot(self, free: "asyncio.Future[None]") -> None:
        self.running -= 1
        self.settling += 1
        if not free.done():
            free.set_result(None)

    def _landed(
        self,
        work: Work,
        found: "tuple[Ending, Ended] | BaseException",
        free: "asyncio.Future[None]",
        early: bool,
    ) -> None:
        """Take what the thread of a job has found."""
        if early:
            self.settling -= 1
        else:
            self.running -= 1
        if isinstance(found, BaseException):
            if free.done():
                _log.error("the end of a job failed: %r", found)
            else:
                free.set_exception(found)
            return
        self._told(work, *found)
        if not free.done():
            free.set_result(None)

    def _signed(self, work: Work) -> Ending:
        job = work.job
        try:
            execution = self._runner.run(job, work.streams())
        except JobRefusedError as error:
            return Ending(state=State.FAILED, detail=f"invalid request: {error}"[:500])
        except (PhaseError, OSError, MemoryError) as error:
            return Ending(state=State.FAILED, detail=f"the node could not run it: {error}"[:500])
        said = receipts.describe(
            job,
            execution,
            node=self._identity.public_key,
            job_id=work.offer.job,
            nonce=work.offer.nonce,
            requester=work.client,
            attempt=work.offer.attempt,
        )
        try:
            envelope = receipts.issue(said, self._identity)
        except PhaseError as error:
            return Ending(state=State.LOST, detail=f"it ran, and has no receipt: {error}"[:500])
        return Ending(
            state=State.DONE,
            status=execution.status,
            receipt=envelope,
            detail=work.why,
            files=execution.files,
        )

    async def _finish(self, work: Work, ending: Ending) -> None:
        """Put the end of a job that does not run on record, and tell of it, whatever its caller does."""
        await self._whole(self._finished(work, ending))

    async def _finished(self, work: Work, ending: Ending) -> None:
        self._told(work, *await self.disk.run(self._settled, work, ending))
        await self._compact()

    async def _whole(self, steps: Coroutine[None, None, None]) -> None:
        """Go through steps that must not be left in the middle."""
        task = asyncio.get_running_loop().create_task(steps)
        self._finishing.add(task)
        task.add_done_callback(self._left)
        await asyncio.shield(task)

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._finishing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the end of a job failed: %r", error)

    def _settled(self, work: Work, ending: Ending) -> tuple[Ending, Ended]:
        """Keep a result, and put the end on record, in a thread."""
        ending = self._keep(work, ending)
        ended = _ended(work, ending)
        self._recording.append(ended)
        try:
            self._journal.record(ended)
        except StateError as error:
            _log.error("%s", error)
            ending = self._unrecorded(work, ending, error)
        return ending, ended

    def _told(self, work: Work, ending: Ending, ended: Ended) -> None:
        """Tell of an end that is on record."""
        self.ledger.end(_ended(work, ending))
        self._recording.remove(ended)
        self.ended[ending.state.value] += 1
        self._leave(work)
        work.end(ending)

    async def _compact(self) -> None:
        if self._journal.overlong:
            try:
                await self._journal.compact(self._events())
            except StateError as error:
                # The old one goes on; the journal says when it is time to try again.
                _log.error("%s", error)

    def _events(self) -> Iterator[Event]:
        """What a new journal must have: not the jobs that are not complete, and all ends."""
        incomplete = {(work.client, work.offer.job) for work in self._incomplete}
        for event in self.ledger.events():
            if (event.client, event.job) not in incomplete:
                yield event
        yield from list(self._recording)  # threads add to it

    def _unrecorded(self, work: Work, ending: Ending, error: StateError) -> Ending:
        """What is said of a job whose end the journal does not have: what a restart would say, too."""
        if ending.receipt is None or self.kept.has(work.client, work.offer.job):
            return ending
        return Ending(state=State.LOST, detail=f"it ran, and its end cannot be recorded: {error}"[:500])

    def _keep(self, work: Work, ending: Ending) -> Ending:
        """Keep the result of a detached job."""
        if work.spool is None:
            return ending
        work.spool.close()
        if ending.receipt is None:
            self.kept.drop(work.client, work.offer.job)
            return ending
        try:
            self.kept.finish(work.client, work.offer.job, ending.receipt, ending.files)
        except OSError as error:
            self.kept.drop(work.client, work.offer.job)
            return Ending(
                state=State.LOST, detail=f"it ran, and its result cannot be kept: {error.strerror}"
            )
        return ending

    def _leave(self, work: Work) -> None:
        if self._works.pop((work.client, work.offer.job), None) is not None:
            self._incomplete.discard(work)
            self._held.give_back(work.client, work.offer.module, work.own_bytes)
            self._of[work.client] -= 1
            if not self._of[work.client]:
                del self._of[work.client]

    def _report_lost(self) -> None:
        """What an earlier process had taken and not ended is lost: it may have run, or not."""
        for known in self.ledger.unfinished():
            found = self._recovered(known.taken)
            self._journal.append(found)
            self.ledger.end(found)
            self.ended[found.state.value] += 1

    def _recovered(self, taken: Taken) -> Ended:
        """How a job of an earlier process ended: its receipt may be kept, though the journal has no end."""
        status, state, detail = None, State.LOST, "the node ended while it had this job"
        envelope = self.kept.receipt(taken.client, taken.job)
        if envelope is not None:
            try:
                said = receipts.verify(
                    envelope,
                    key=self._identity.public_key,
                    job_id=taken.job,
                    module_sha256=taken.module,
                    requester=taken.client,
                )
            except JobError as error:
                self.kept.drop(taken.client, taken.job)
                detail = f"what is kept of it is damaged: {error}"[:500]
            else:
                status, state, detail = _bounded(said.status), State.DONE, ""
        return Ended(
            client=taken.client, job=taken.job, state=state, at=time.time(), status=status, detail=detail
        )


def _call(future: "asyncio.Future[None]", call: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
    """Have the event loop of a future call something; in another thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
        future.get_loop().call_soon_threadsafe(call, *args)


def _ended(work: Work, ending: Ending) -> Ended:
    """For the journal."""
    return Ended(
        client=work.client,
        job=work.offer.job,
        state=ending.state,
        at=time.time(),
        status=_bounded(ending.status),
        detail=ending.detail,
    )


def _bounded(status: Status | None) -> Status | None:
    """A status whose words fit into a line of the journal. The receipt has all of them."""
    match status:
        case Trapped(reason=reason) | Rejected(reason=reason):
            return type(status)(reason[:500])
        case Killed(signal=number, reason=reason):
            return Killed(number, reason[:500])
        case _:
            return status
