"""`phase peers`: which nodes are there, and what can they do?"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from phase import arch as arches
from phase.cli import _options
from phase.cli._dht import dht_option
from phase.cli._options import option
from phase.cli._tell import Out
from phase.errors import PhaseError

if TYPE_CHECKING:
    from phase.peer.records import Capability

_log = logging.getLogger(__name__)

#: Options that say which node is wanted; `phase job submit` has them, too.
wanted_arch = option("--arch", default="any", metavar="NAME", help="Architecture; any takes each.")
wanted_runtime = option(
    "--runtime", default="wasi-preview1", metavar="NAME", help="Runtime that the node must have."
)
#: Seconds for a search.
SECONDS = 5.0
#: Seconds for others, once there are enough nodes: one of them may have more free slots.
OTHERS_SECONDS = 0.5


@click.command("peers")
@wanted_arch
@wanted_runtime
@option(
    "--memory",
    type=click.IntRange(0, 4096),
    default=0,
    metavar="MIB",
    standard="any",
    help="Memory that the node must have for a job.",
)
@dht_option
@option("--no-mdns", is_flag=True, help="Do not use multicast DNS.")
@_options.timeout(SECONDS, 0.1, 600)
@_options.as_json_lines
def command(
    arch: str,
    runtime: str,
    memory: int,
    dht: tuple[tuple[str, int], ...],
    no_mdns: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Look for nodes on the local networks and in the DHT.

    What they say of themselves is verified by nobody. In the DHT it is signed by their keys.
    """
    from phase.cli.facts import Peer

    found = search(dht, arch, runtime, memory, timeout, mdns=not no_mdns)
    out = Out(as_json)
    for each in found:
        out.facts(
            Peer(
                node=each.key,
                address=str(each.address),
                arch=each.arch,
                runtimes=list(each.runtimes),
                processors=each.processors,
                memory=each.memory,
                slots=each.slots,
                expires=each.expires,
            )
        )
        out.line(f"{each.address}  {each.arch}  {each.memory} MiB  {each.slots} free of {each.processors}")
    if not found:
        raise PhaseError(
            f"no node with {runtime} was found within {timeout:g} s",
            hint="Is `phase node` running on this network, or with the same --dht?",
        )


def search(
    dht: Sequence[tuple[str, int]],
    arch: str,
    runtime: str,
    memory: int,
    seconds: float,
    *,
    mdns: bool = False,
    enough: int = 0,
) -> "list[Capability]":
    """Nodes that say they can do something, those with the most free slots first.

    Args:
        dht: nodes to begin with.
        arch: wanted; `any` takes each.
        runtime: wanted.
        memory: MiB that a job needs.
        seconds: for the search.
        mdns: search the local networks, too.
        enough: end the search soon after so many have answered that have the memory and a free slot; 0 to
            use all of the time.

    Raises:
        PhaseError: there is nothing to search.
    """
    from phase.peer import nearby, publish

    if not dht and not mdns:
        raise click.UsageError("--dht is missing: a node of the DHT to begin with, HOST:PORT")
    wanted = arches.ARCHES if arch == "any" else (arches.canonical(arch),)
    newest: dict[str, Any] = {}
    satisfied = asyncio.Event()

    async def take(searched: "AsyncIterator[Capability]") -> None:
        async for each in searched:
            # What is signed counts; what was heard nearby, only where there is nothing signed.
            if each.seq or not (each.key in newest and newest[each.key].seq):
                newest[each.key] = each
            if enough and sum(_ready(one, memory) for one in newest.values()) >= enough:
                satisfied.set()

    async def look() -> None:
        searches = [publish.find(wanted, runtime, peers=dht, timeout=seconds)] if dht else []
        searches += [nearby.find(wanted, runtime, timeout=seconds)] if mdns else []
        await _until(satisfied, *map(take, searches))

    asyncio.run(look())
    found = [each for each in newest.values() if each.memory >= memory]
    return sorted(found, key=lambda each: (-each.slots, each.key))


def _ready(found: "Capability", memory: int) -> bool:
    """Whether a node says that it could run a job now."""
    return found.slots > 0 and found.memory >= memory


async def _until(satisfied: asyncio.Event, *searches: Coroutine[Any, Any, None]) -> None:
    """Let searches go on to their end, or until shortly after they have found enough."""

    async def all_of_them() -> None:
        await asyncio.gather(*searches)

    async def enough() -> None:
        await satisfied.wait()
        await asyncio.sleep(OTHERS_SECONDS)

    tasks = searching, waiting = asyncio.ensure_future(all_of_them()), asyncio.ensure_future(enough())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if searching.done():
            searching.result()
    finally:
        waiting.cancel()
        searching.cancel()
        await asyncio.wait(tasks)
        if not searching.cancelled() and (failed := searching.exception()) is not None:
            _log.warning("the search, after enough was found: %s", failed)
