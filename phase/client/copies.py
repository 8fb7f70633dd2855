"""The same deterministic job on several nodes, and their results compared.

A receipt proves that a node said something, not that it computed honestly. Nodes of different owners that
say the same make it likely; nodes that do not are shown with the receipts of both sides.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from phase.client.client import Client
from phase.client.errors import ClientError
from phase.client.task import Result, Task
from phase.errors import PhaseError
from phase.peer.transport import Address


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What nodes said.

    Args:
        result: of one of those that agree.
        agreed: results that are the same.
        others: verified results that are not.
        failed: by the node's key, why there is no result.
    """

    result: Result
    agreed: tuple[Result, ...]
    others: tuple[Result, ...]
    failed: dict[str, PhaseError]


class DisagreedError(ClientError):
    """Too few nodes gave the same result.

    Args:
        wanted: how many must.
        sides: the results that are the same, side by side, the largest side first.
        failed: by the node's key, why there is no result.
    """

    def __init__(
        self, wanted: int, sides: Sequence[tuple[Result, ...]], failed: dict[str, PhaseError]
    ) -> None:
        self.sides, self.failed = tuple(sides), failed
        counts = " and ".join(str(len(side)) for side in sides) or "none"
        words = f"{wanted} nodes must give the same result; of those that gave one, {counts} agree"
        super().__init__(words + (f", and {len(failed)} gave none" if failed else ""))


async def run(
    client: Client, nodes: Sequence[Address | str], task: Task, wanted: int, *, job: str | None = None
) -> Agreement:
    """Run a job on several nodes at the same time, until enough of them agree.

    Args:
        client: brings the job.
        nodes: each once.
        task: deterministic.
        wanted: how many must give the same result.
        job: its id at each node; random ones when left out.

    Raises:
        ClientError: the task is not deterministic, or there are too few nodes.
        DisagreedError: fewer than `wanted` gave the same.
    """
    places = [Address.parse(each) if isinstance(each, str) else each for each in nodes]
    if task.seed is None:
        raise ClientError("only deterministic jobs can be compared", hint="Give the job a seed.")
    if len({each.key for each in places}) < len(places) or not 0 < wanted <= len(places):
        raise ClientError(f"{wanted} of {len(places)} nodes cannot agree: name each node once, and enough")
    results, failed = await _gathered(client, places, task, wanted, job)
    sides = _sides(results)
    if not sides or len(sides[0]) < wanted:
        raise DisagreedError(wanted, sides, failed)
    others = tuple(each for side in sides[1:] for each in side)
    return Agreement(result=sides[0][0], agreed=sides[0], others=others, failed=failed)


async def _gathered(
    client: Client, places: Sequence[Address], task: Task, wanted: int, job: str | None
) -> tuple[list[Result], dict[str, PhaseError]]:
    """Results until enough of them are the same, in the order of their nodes; why others have given none.

    The others end it then: a job whose client leaves is cancelled.
    """
    running = {asyncio.ensure_future(client.run(place, task, job=job)): place.key for place in places}
    results: dict[str, Result] = {}
    failed: dict[str, PhaseError] = {}
    try:
        left = set(running)
        while left and not (results and len(_sides([*results.values()])[0]) >= wanted):
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                try:
                    results[running[each]] = each.result()
                except PhaseError as error:
                    failed[running[each]] = error
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [results[place.key] for place in places if place.key in results], failed


def _sides(results: Sequence[Result]) -> list[tuple[Result, ...]]:
    """Results by what they say, the largest side first."""
    found: dict[tuple[object, ...], list[Result]] = {}
    for each in results:
        said = each.receipt
        outputs = tuple(sorted((name, content.sha256) for name, content in said.outputs.items()))
        key = repr(said.status), said.stdout.sha256, said.stderr.sha256, outputs
        found.setdefault(key, []).append(each)
    return sorted(map(tuple, found.values()), key=len, reverse=True)
