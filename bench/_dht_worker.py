"""A process with some of the nodes of a DHT: does what `bench.dht` tells it, a line of JSON each.

python -m bench._dht_worker SOCKET KIND
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bench import _dht_liars
from bench._dht_nodes import PORT, Library, Node, Ours, Wanted
from bench._dht_tape import Loop, Tape

#: Nodes of one process that join at the same time.
_JOIN_AT_ONCE = 4


class Worker:
    """The nodes of this process, by host.

    Args:
        make: makes a node.
        loop: the event loop, with the tapes.
    """

    def __init__(self, make: Callable[[], Node], loop: Loop) -> None:
        self._make, self._loop = make, loop
        self._nodes: dict[str, Node] = {}
        self._liars: list[Callable[[], None]] = []

    async def start(self, nodes: list[tuple[str, str, list[str]]]) -> list[list[float]]:
        """Start nodes; each joins by some hosts. Returns nodes known, messages and bytes of each."""
        free = asyncio.Semaphore(_JOIN_AT_ONCE)

        async def one(host: str, id_: str, peers: list[str]) -> list[float]:
            async with free:
                node = self._make()
                await node.start(host, bytes.fromhex(id_))
                self._nodes[host] = node
                known = await node.join([(peer, PORT) for peer in peers]) if peers else 0
                return [known, self._tape(host).messages, self._tape(host).bytes]

        return await asyncio.gather(*(one(*each) for each in nodes))

    async def again(self, peers: dict[str, list[str]]) -> None:
        """Let nodes join once more, as providers do every five minutes."""
        free = asyncio.Semaphore(_JOIN_AT_ONCE)

        async def one(host: str) -> None:
            async with free:
                await self._nodes[host].join([(peer, PORT) for peer in peers[host]])

        await asyncio.gather(*(one(host) for host in peers if host in self._nodes))

    async def stop(self, hosts: list[str]) -> None:
        """End nodes without a word."""
        for host in hosts:
            self._nodes.pop(host).stop()
        await asyncio.sleep(0)

    async def publish(self, channel: str, host: str) -> list[float]:
        """Announce; returns keepers, messages and bytes."""
        tape = self._tape(host)
        before = tape.messages, tape.bytes
        kept = await self._nodes[host].publish(Wanted(channel, host))
        return [kept, tape.messages - before[0], tape.bytes - before[1]]

    async def look(self, channel: str, provider: str, host: str) -> dict[str, float]:
        """One lookup by the node of a host."""
        found = await self._nodes[host].look(Wanted(channel, provider), self._tape(host))
        return found._asdict()

    async def boot(self, channel: str, provider: str, host: str, peers: list[str]) -> dict[str, float]:
        """A machine that boots: knows nobody but some hosts, looks, and is gone."""
        node = Ours(serves=False) if self._make is Ours else self._make()
        try:
            await node.start(host, os.urandom(20))
            await node.join([(peer, PORT) for peer in peers])
            found = await node.look(Wanted(channel, provider), self._tape(host))
            return {**found._asdict(), "all": self._tape(host).messages}
        finally:
            node.stop()

    async def lie(self, members: list[list[Any]], wanted: list[list[str]], mine: list[list[Any]]) -> None:
        """Start liars: kind, id, host, and the hosts that it makes itself known to."""
        all_ = [(bytes.fromhex(id_), host, PORT) for id_, host in members]
        gang = _dht_liars.Gang(all_, [Wanted(*each) for each in wanted])
        for kind, id_, host, honest in mine:
            contact = (bytes.fromhex(id_), host, PORT)
            self._liars.append(await _dht_liars.begin(gang, kind, contact, honest, lists=self._make is Ours))

    def _tape(self, host: str) -> Tape:
        return self._loop.tapes[host]


async def _serve(worker: Worker, path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path, limit=16 << 20)

    async def answer(number: int, do: Callable[..., Awaitable[object]], given: list[object]) -> None:
        try:
            said = {"number": number, "said": await do(*given)}
        except Exception as error:
            # The one who measures must hear of it, and end.
            said = {"number": number, "failed": repr(error)}
        writer.write(json.dumps(said).encode() + b"\n")

    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        number, name, *given = json.loads(line)
        task = asyncio.ensure_future(answer(number, getattr(worker, name), given))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def main() -> None:
    """Serve until the connection ends."""
    path, kind = sys.argv[1:]
    loop = Loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_serve(Worker(Ours if kind == "ours" else Library, loop), path))


if __name__ == "__main__":
    main()
