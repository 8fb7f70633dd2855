"""What a node knows of its jobs: those it has, and those that have ended, as far back as it remembers."""

import time
from collections.abc import Iterator

import msgspec

from phase.jobs.status import Status
from phase.node.errors import RefusedError
from phase.node.journal import Ended, Event, Taken
from phase.peer.messages import FINAL, MAX_LISTED, JobStatus, Reason, State

#: Ended jobs that are remembered, of one client and of all. An older id could be used again.
REMEMBERED, REMEMBERED_OF_ALL = 10_000, 50_000


class Known(msgspec.Struct):
    """One job.

    Attributes:
        taken: what the journal has of its beginning.
        state: now.
        ended: when, in seconds since the epoch; None before.
        status: how, if it ran.
        detail: for people.
    """

    taken: Taken
    state: State = State.QUEUED
    ended: float | None = None
    status: Status | None = None
    detail: str = ""

    def said(self, *, kept: bool) -> JobStatus:
        """As its client is told.

        Args:
            kept: whether output and receipt can be fetched.
        """
        return JobStatus(
            job=self.taken.job,
            state=self.state,
            module=self.taken.module,
            accepted=self.taken.at,
            ended=self.ended,
            status=self.status,
            kept=kept,
            detail=self.detail,
        )


class Ledger:
    """All jobs that the node knows, by client and id, the oldest first."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Known]] = {}
        self._ended = 0

    @classmethod
    def replayed(cls, events: list[Event]) -> "Ledger":
        """The ledger that a journal tells of. What has not ended there is `queued`: see `unfinished`."""
        found = cls()
        for event in events:
            if isinstance(event, Taken):
                found._of.setdefault(event.client, {}).setdefault(event.job, Known(event))
            else:
                found.end(event)
        return found

    def find(self, client: str, job: str) -> Known:
        """One job of a client.

        Raises:
            RefusedError: there is none.
        """
        known = self._of.get(client, {}).get(job)
        if known is None:
            raise RefusedError(Reason.UNKNOWN_JOB, "no job of this client has this id here")
        return known

    def check_new(self, client: str, job: str) -> None:
        """Refuse an id that this client has used before.

        Raises:
            RefusedError: it has; the detail says what became of that job.
        """
        known = self._of.get(client, {}).get(job)
        if known is not None:
            raise RefusedError(Reason.DUPLICATE, f"this client's job of this id is {known.state.value}")

    def take(self, taken: Taken) -> Known:
        """Remember a new job."""
        known = self._of.setdefault(taken.client, {})[taken.job] = Known(taken)
        return known

    def forget(self, taken: Taken) -> None:
        """Forget a job that was not taken after all."""
        mine = self._of.get(taken.client, {})
        mine.pop(taken.job, None)
        if not mine:
            self._of.pop(taken.client, None)

    def end(self, ended: Ended) -> None:
        """Remember how a job ended; the oldest that ended is forgotten where there are too many."""
        mine = self._of.get(ended.client, {})
        known = mine.get(ended.job)
        if known is None or known.state in FINAL:
            return
        known.state, known.ended, known.status = ended.state, ended.at, ended.status
        known.detail = ended.detail
        self._ended += 1
        if len(mine) > REMEMBERED:
            self._drop(ended.client)
        elif self._ended > REMEMBERED_OF_ALL:
            self._drop(max(self._of, key=lambda client: len(self._of[client])))

    def jobs(self, client: str) -> list[Known]:
        """The newest jobs of a client, the newest first."""
        mine = list(self._of.get(client, {}).values())
        return mine[: -MAX_LISTED - 1 : -1]

    def unfinished(self) -> list[Known]:
        """All jobs that have not ended."""
        return [known for known in self if known.state not in FINAL]

    def events(self) -> Iterator[Event]:
        """What a new journal must have."""
        for known in self:
            yield known.taken
            if known.state in FINAL:
                yield Ended(
                    client=known.taken.client,
                    job=known.taken.job,
                    state=known.state,
                    at=known.ended or time.time(),
                    status=known.status,
                    detail=known.detail,
                )

    def __iter__(self) -> Iterator[Known]:
        return (known for mine in self._of.values() for known in mine.values())

    def _drop(self, client: str) -> None:
        mine = self._of[client]
        for job, known in mine.items():
            if known.state in FINAL:
                del mine[job]
                self._ended -= 1
                break
        if not mine:
            del self._of[client]
