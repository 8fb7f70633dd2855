"""A DHT of many real nodes in a few processes on loopback: built, attacked and asked from here."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from bench._dht_liars import KINDS
from bench._dht_nodes import Looked, Wanted

PROCESSES = 4
#: Hosts that a node is told of when it joins.
_PEERS = 3
#: Honest hosts that each liar makes itself known to, beside the nearest to the place under attack.
_TOLD, _TOLD_NEAR = 100, 40
#: Of so many hosts, a sybil has the best.
_CHOICE = 8
_TREE = Path(__file__).resolve().parents[1]


class _Process:
    """One worker process, and the questions that it has not answered yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._task = asyncio.ensure_future(self._hear(reader))

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            said = json.loads(line)
            waiting = self._waiting.pop(said["number"])
            if "failed" in said:
                waiting.set_exception(RuntimeError(said["failed"]))
            else:
                waiting.set_result(said["said"])
        for left in self._waiting.values():
            left.set_exception(RuntimeError("a process with nodes has ended"))

    async def __call__(self, name: str, *given: object) -> Any:
        self._count += 1
        self._waiting[self._count] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps([self._count, name, *given]).encode() + b"\n")
        return await self._waiting[self._count]

    def close(self) -> None:
        """Let the process end."""
        self._task.cancel()
        self._writer.close()


class Town:
    """The nodes.

    Args:
        processes: each with a part of them.
        chance: for all that is random.
    """

    def __init__(self, processes: Sequence[_Process], chance: random.Random) -> None:
        self._processes = processes
        self._chance = chance
        self._used: set[str] = set()
        self._home: dict[str, _Process] = {}
        #: Honest hosts that are there.
        self.honest: list[str] = []
        #: What the providers announce, the place under attack first.
        self.wanted: list[Wanted] = []
        #: By new node: how many it knew then, and its datagrams and their bytes.
        self.joined: list[list[float]] = []

    @property
    def attacked(self) -> Wanted:
        """What the liars want nobody to find."""
        return self.wanted[0]

    def _host(self) -> str:
        """A new address, in a /24 of its own."""
        while True:
            host = ".".join(["127", *(str(self._chance.randint(1, 254)) for _ in range(3))])
            if (network := host.rpartition(".")[0]) not in self._used:
                self._used.add(network)
                return host

    async def grow(self, count: int) -> None:
        """Start nodes; each is told of some that are there already."""
        hosts = [self._host() for _ in range(count)]
        begin: dict[_Process, list[tuple[str, str, list[str]]]] = {each: [] for each in self._processes}
        for host in hosts:
            self._home[host] = self._chance.choice(self._processes)
            begin[self._home[host]].append((host, id_of(host).hex(), self._some(_PEERS)))
        for each in await asyncio.gather(*(process("start", nodes) for process, nodes in begin.items())):
            self.joined += each
        self.honest += hosts

    async def build(self, count: int) -> None:
        """Start all honest nodes. Then each joins once more, as it does later, too, every five minutes."""
        await self.grow(1)
        while len(self.honest) < count:
            await self.grow(min(len(self.honest), 100, count - len(self.honest)))
        self.joined.clear()
        for begin in range(0, count, 100):
            each = self.honest[begin : begin + 100]
            peers = {host: self._some(_PEERS) for host in each}
            await asyncio.gather(*(process("again", peers) for process in self._processes))

    def _some(self, count: int) -> list[str]:
        return self._chance.sample(self.honest, min(count, len(self.honest)))

    def choose(self, name: str, count: int) -> None:
        """Choose providers, each of a channel of its own."""
        self.wanted = [Wanted(f"{name}-{n}", host) for n, host in enumerate(self._some(count))]

    async def publish(self) -> list[list[float]]:
        """Let the providers announce."""
        costs: list[list[float]] = await asyncio.gather(
            *(self._home[each.host]("publish", each.channel, each.host) for each in self.wanted)
        )
        return costs

    async def attack(self, count: int) -> None:
        """Start liars, a third of each kind."""
        place = int.from_bytes(self.attacked.place)
        liars = [
            (KINDS[n % 3], *self._liar(KINDS[n % 3], place, n), self._home_of_liar()) for n in range(count)
        ]
        members = [[id_, host] for _, id_, host, _ in liars]
        wanted = [list(each) for each in self.wanted]
        near = sorted(self.honest, key=lambda host: int.from_bytes(id_of(host)) ^ place)[:_TOLD_NEAR]

        async def begin(process: _Process) -> None:
            mine = [
                [kind, id_, host, near + self._some(_TOLD)]
                for kind, id_, host, home in liars
                if home is process
            ]
            await process("lie", members, wanted, mine)

        await asyncio.gather(*(begin(process) for process in self._processes))

    def _home_of_liar(self) -> _Process:
        return self._chance.choice(self._processes)

    def _liar(self, kind: str, place: int, number: int) -> tuple[str, str]:
        """The id and the host of a liar."""
        if kind == "eclipse":
            return (place ^ number).to_bytes(20).hex(), self._host()
        hosts = [self._host() for _ in range(_CHOICE if kind == "sybil" else 1)]
        host = min(hosts, key=lambda host: int.from_bytes(id_of(host)) ^ place)
        return id_of(host).hex(), host

    async def churn(self, count: int, seconds: float) -> None:
        """Let nodes end without a word, and as many others join, evenly over a time."""
        providers = {each.host for each in self.wanted}
        tasks = []
        for _ in range(count):
            gone = self._chance.choice([host for host in self.honest if host not in providers])
            self.honest.remove(gone)
            tasks.append(asyncio.ensure_future(self._home[gone]("stop", [gone])))
            tasks.append(asyncio.ensure_future(self.grow(1)))
            await asyncio.sleep(seconds / count)
        await asyncio.gather(*tasks)

    async def look(self, wanted: Wanted) -> Looked:
        """One lookup by a node that is no provider of it."""
        host = self._chance.choice([host for host in self.honest if host != wanted.host])
        try:
            looked = Looked(**await self._home[host]("look", wanted.channel, wanted.host, host))
        except RuntimeError:
            if host in self.honest:
                raise
        # Who ends meanwhile has not looked.
        return looked if host in self.honest else await self.look(wanted)

    async def boot(self, wanted: Wanted) -> Looked:
        """One lookup by a machine that knows three honest nodes."""
        process = self._chance.choice(self._processes)
        return Looked(**await process("boot", wanted.channel, wanted.host, self._host(), self._some(_PEERS)))


def id_of(host: str) -> bytes:
    """The id of a node of the library; honest ones choose none."""
    return hashlib.sha256(host.encode()).digest()[:20]


@contextlib.asynccontextmanager
async def town(kind: str, seed: int) -> AsyncIterator[Town]:
    """A town without nodes.

    Args:
        kind: `ours` or `library`.
        seed: for all that is random, but for what the nodes themselves do.
    """
    connected: asyncio.Queue[_Process] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.put_nowait(_Process(reader, writer))

        server = await asyncio.start_unix_server(meet, path, limit=16 << 20)
        command = [sys.executable, "-m", "bench._dht_worker", path, kind]
        environment = {**os.environ, "PYTHONPATH": str(_TREE)}
        started = [await asyncio.create_subprocess_exec(*command, env=environment) for _ in range(PROCESSES)]
        processes = [await connected.get() for _ in started]
        try:
            yield Town(processes, random.Random(seed))  # noqa: S311  # not a secret
        finally:
            for process in processes:
                process.close()
            for each in started:
                await each.wait()
            server.close()
