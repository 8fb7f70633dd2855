"""Spreads jobs over several nodes: each goes to the node that has the fewest of ours.

A job is given to another node only where it is sure that it did not run: it was refused, handed back, or
never arrived. One that is lost may have run, so that is told to the caller.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from phase.client.client import Client
from phase.client.errors import ClientError, NotRunError, RejectedError
from phase.client.task import Result, Task
from phase.errors import PhaseError
from phase.peer.errors import PeerError
from phase.peer.messages import Reason, State
from phase.peer.transport import Address

#: Refusals that another node, or the same one later, may not have.
ELSEWHERE = frozenset(
    {
        Reason.QUEUE_FULL,
        Reason.QUOTA,
        Reason.STOPPING,
        Reason.INSUFFICIENT_RESOURCES,
        Reason.ARCH_MISMATCH,
        Reason.RUNTIME_NOT_SUPPORTED,
        Reason.NOT_AUTHORISED,
    }
)
#: Of those, the ones that pass.
_PASSING = frozenset({Reason.QUEUE_FULL, Reason.QUOTA})
#: Seconds to wait when every node is full, doubled each time up to the second number.
PAUSE_SECONDS = (0.05, 2.0)
#: Jobs that one `Spread` has at nodes at a time, so that those which wait cost nothing but their names.
AT_A_TIME = 256


class Spread:
    """Runs jobs on whichever of its nodes has room.

    Args:
        client: brings the jobs.
        nodes: where.
        most: jobs at a time; others wait.

    Raises:
        ClientError: there is no node.
    """

    def __init__(self, client: Client, nodes: Sequence[Address | str], *, most: int = AT_A_TIME) -> None:
        if not nodes:
            raise ClientError("there is no node to give jobs to")
        self._client = client
        self._nodes = [Address.parse(each) if isinstance(each, str) else each for each in nodes]
        self._busy: Counter[str] = Counter()
        self._places = asyncio.Semaphore(most)

    async def run(self, task: Task) -> Result:
        """Run a job, and wait for its verified result.

        Args:
            task: the job.

        Raises:
            ClientError, PeerError: as `Client.run`; of the last node that was tried.
        """
        async with self._places:
            return await self._anywhere(task)

    async def _anywhere(self, task: Task) -> Result:
        pause, attempt = PAUSE_SECONDS[0], task.attempt
        while True:
            full = False
            last: PhaseError | None = None
            for node in sorted(self._nodes, key=lambda each: self._busy[each.key]):
                try:
                    return await self._run(node, msgspec.structs.replace(task, attempt=attempt))
                except RejectedError as error:
                    if error.reason not in ELSEWHERE:
                        raise
                    last, full = error, full or error.reason in _PASSING
                except NotRunError as error:
                    if error.state is not State.RETURNED:
                        raise
                    last, attempt = error, attempt + 1
                except PeerError as error:
                    last = error
            if not full and last is not None:
                raise last
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS[1])

    async def _run(self, node: Address, task: Task) -> Result:
        self._busy[node.key] += 1
        try:
            return await self._client.run(node, task)
        finally:
            self._busy[node.key] -= 1
