"""How long a client waits for a node that says nothing, or nothing of use."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from phase.client.errors import ClientError, JobLostError
from phase.errors import printable
from phase.peer import messages
from phase.peer.errors import PeerError
from phase.peer.framing import Frame, Frames, Kind, ProtocolError
from phase.peer.messages import State

#: Seconds for a node to answer a question.
ANSWER_SECONDS = 30.0
#: Seconds that a node and the network may take, besides what the job may.
NETWORK_SECONDS = 60.0
#: The slowest result, bytes a second.
LEAST_RATE = 16 << 10
#: Messages on the way of one job; an honest node has two.
MAX_MESSAGES = 16


class Patience:
    """Receives what a node says of one job, no longer than the limits of the job explain.

    A job that waits in a queue may wait for others as long as it takes, so the node is asked now and then.

    Args:
        frames: from the node.
        job: its id.
        wall_seconds: the wall limit of the job; None if it is not known.
        ask: the state of the job, asked on another stream.
    """

    def __init__(
        self, frames: Frames, job: str, wall_seconds: float | None, ask: Callable[[], Awaitable[State]]
    ) -> None:
        self._frames, self._job, self._wall, self._ask = frames, job, wall_seconds, ask
        self._waited, self._bytes, self._messages = 0.0, 0, 0
        self._begun = self._receipt = False
        #: States that were a reason to wait on.
        self._seen: set[State] = set()

    async def receive(self) -> Frame | None:
        """The next frame; None when the node has finished.

        Raises:
            JobLostError: the node was silent for too long.
            PeerError: the network failed, or the node says what makes no sense.
        """
        while True:
            if (found := self._frames.here()) is not None:
                self._check(found)
                return found
            most = (self._wall or 0.0) + NETWORK_SECONDS + self._bytes / LEAST_RATE
            before = monotonic()
            try:
                async with asyncio.timeout(max(most - self._waited, 0.0)):
                    found = await self._frames.receive(seconds=None)
            except TimeoutError:
                await self._wait_on(most)
                continue
            self._waited += monotonic() - before
            if found is not None:
                self._check(found)
            return found

    def _check(self, found: Frame) -> None:
        """Refuse what costs the node nothing and could go on for ever."""
        self._bytes += len(found.data)
        if found.kind is Kind.MESSAGE:
            self._messages += 1
        elif not found.data or (found.kind is Kind.RECEIPT and self._receipt):
            raise ProtocolError(f"the node sends an idle frame of {found.kind.name.lower()}")
        self._begun = self._begun or found.kind is not Kind.MESSAGE
        self._receipt = self._receipt or found.kind is Kind.RECEIPT
        if self._messages > MAX_MESSAGES:
            raise ProtocolError(f"the node sends more than {MAX_MESSAGES} messages of one job")

    async def _wait_on(self, most: float) -> None:
        """Ask how far the job is, and begin to wait anew if that explains the silence."""
        silence = f"the node said nothing of its end within {most:.3g} s"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                state = await self._ask()
        except TimeoutError:
            raise JobLostError(self._job, f"{silence}, and does not answer") from None
        except (PeerError, ClientError) as error:
            raise JobLostError(self._job, f"{silence}: {printable(error.what)}") from error
        # A job whose output has begun waits for no other.
        unlimited = not self._begun and (
            state is State.QUEUED or (state is State.RUNNING and self._wall is None)
        )
        if state in self._seen and not unlimited:
            raise JobLostError(self._job, silence)
        self._seen.add(state)
        self._waited = 0.0


def check_end(job: str, said: messages.Result) -> messages.Result:
    """Check that a node's word of an end is of the job, and of an end.

    Raises:
        ProtocolError: it is not.
    """
    check_job(job, said.job)
    if said.state not in messages.FINAL:
        raise ProtocolError(f"the node says that the job has ended and is {said.state.value}")
    return said


def check_job(job: str, said: str) -> None:
    """Check that a node's answer is of the job.

    Raises:
        ProtocolError: it is not.
    """
    if said != job:
        raise ProtocolError(f"the node answers for another job: {said!r}")
