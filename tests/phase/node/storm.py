"""Clients that bring jobs while somebody kills workers, the node and clients. By hand, with more of all:

python -m tests.phase.node.storm --clients 8 --jobs 1000 --kills 20
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from phase.client.sync import SyncClient
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.peer.messages import State
from tests.phase.node.conftest import CAT, wasm
from tests.phase.node.service import Node, begin

#: One client: reads ids from its input, runs a job for each, and writes what became of it, a line each.
CLIENT = """
import asyncio, json, sys
from pathlib import Path
from phase.client import Client, ClientError, JobLostError, NotRunError, RejectedError, Task
from phase.identity import Identity
from phase.peer.errors import PeerError
state, place, module, receipts = map(Path, sys.argv[1:5])
task = Task(module=module.read_bytes(), stdin=b"Hello")

async def one(client, job):
    pause = 0.05
    while True:
        try:
            result = await client.run(place.read_text(), task, job=job)
        except JobLostError:
            return "lost"
        except NotRunError:
            return "not run"
        except RejectedError as error:
            # An id that the node knows was lost on its way back.
            if error.reason.value == "duplicate":
                return "lost"
        except PeerError:
            pass
        else:
            (receipts / job).write_bytes(result.envelope)
            return "answered"
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)

async def main():
    ids = sys.stdin.read().split()
    async with Client.open(Identity.load(state), connect_seconds=2.0) as client:
        left = iter(ids)
        async def some():
            for job in left:
                print(json.dumps([job, await one(client, job)]), flush=True)
        await asyncio.gather(some(), some(), some())

asyncio.run(main())
"""


class Told(NamedTuple):
    """What became of the jobs.

    Attributes:
        answered: with a verified receipt.
        lost: not known to their client whether they ran; those of killed clients included.
        not_run: known not to have run.
        twice: ids with more than one receipt at the node.
        differ: ids of which the node's books say something else than their client heard.
        left: processes and files that should not be there at the end.
    """

    answered: int
    lost: int
    not_run: int
    twice: list[str]
    differ: list[str]
    left: list[str]


class Storm:
    """One run.

    Args:
        directory: empty.
        clients: processes that bring jobs.
        jobs: in all.
        kills: of each kind: workers, node, client.
        seconds: for all of it.
    """

    def __init__(self, directory: Path, *, clients: int, jobs: int, kills: int, seconds: float) -> None:
        self._directory, self._deadline = directory, time.monotonic() + seconds
        self._keys = [
            Identity.load_or_create(directory / f"client{number}/identity.json") for number in range(clients)
        ]
        self._jobs = {
            number: [f"{number}-{job}" for job in range(jobs // clients)] for number in range(clients)
        }
        self._kills = kills
        (directory / "cat.wasm").write_bytes(wasm(CAT))
        (directory / "receipts").mkdir()
        self._node = self._begin()
        #: Processes of nodes that were killed: they must end with them.
        self._below: set[int] = set()

    def _begin(self) -> Node:
        allowed = [word for key in self._keys for word in ("--allow", key.public_key)]
        node = begin(self._directory, *allowed, "--slots", "2")
        place = self._directory / "place.new"
        place.write_text(node.address)
        place.replace(self._directory / "place")
        return node

    def run(self) -> Told:
        """Run it."""
        clients = {number: self._client(number, ids) for number, ids in self._jobs.items()}
        try:
            self._kill(clients)
            for process in clients.values():
                if process.wait(max(self._deadline - time.monotonic(), 1)):
                    raise RuntimeError("a client failed; its words are above")
            return self._told()
        finally:
            for process in clients.values():
                process.kill()
                process.wait()
            self._node.end()

    def _client(self, number: int, ids: list[str]) -> "subprocess.Popen[str]":
        where = self._directory
        words = [
            where / f"client{number}/identity.json",
            where / "place",
            where / "cat.wasm",
            where / "receipts",
        ]
        (where / f"ids{number}").write_text("\n".join(ids))
        with (where / f"ids{number}").open() as given, (where / f"said{number}").open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-c", CLIENT, *map(str, words)], stdin=given, stdout=said, text=True
            )

    def _kill(self, clients: "dict[int, subprocess.Popen[str]]") -> None:
        """Kill a worker, the node and a client in turn, while there are jobs."""
        chance = random.Random(1)  # noqa: S311
        for _ in range(self._kills):
            for what in ("worker", "node", "client"):
                time.sleep(chance.uniform(0.1, 0.5))
                if what == "worker":
                    for pid in workers(self._node.process.pid):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                elif what == "node":
                    self._below |= workers(self._node.process.pid)
                    self._node.end()
                    self._node = self._begin()
                else:
                    self._replace(clients, chance.choice([*clients]))

    def _replace(self, clients: "dict[int, subprocess.Popen[str]]", number: int) -> None:
        """Kill a client; another one brings what it has not brought."""
        clients[number].kill()
        clients[number].wait()
        said = self._said(number)
        # Of what it had brought and not heard of, the next one finds the ids used, or brings them.
        clients[number] = self._client(number, [job for job in self._jobs[number] if job not in said])

    def _said(self, number: int) -> dict[str, str]:
        found = {}
        for line in (self._directory / f"said{number}").read_text().splitlines():
            with contextlib.suppress(ValueError):  # killed while it wrote
                job, word = json.loads(line)
                found[job] = word
        return found

    def _told(self) -> Told:
        counts: Counter[str] = Counter()
        differ = []
        for number, key in enumerate(self._keys):
            said = self._said(number)
            counts.update(said.get(job, "lost") for job in self._jobs[number])
            with SyncClient(key) as client:
                states = {each.job: each.state for each in client.jobs(self._node.address)}
            for job, word in said.items():
                if word == "answered" and states.get(job) is not State.DONE:
                    differ.append(job)
        for path in (self._directory / "receipts").iterdir():
            receipts.verify(path.read_bytes(), key=self._node.key, job_id=path.name)
        return Told(
            counts["answered"], counts["lost"], counts["not run"], self._twice(), differ, self._left()
        )

    def _twice(self) -> list[str]:
        """Jobs that ended more than once by the journal."""
        ended: Counter[tuple[str, str]] = Counter()
        for line in (self._directory / "node/node/journal").read_bytes().splitlines():
            if line:
                event = json.loads(line.partition(b" ")[2])
                ended[event["client"], event["job"]] += (
                    event["event"] == "ended" and event["state"] == "done"
                )
        return [job for (_, job), count in ended.items() if count > 1]

    def _left(self) -> list[str]:
        """Processes of nodes that were killed, and half-written files."""
        found = [str(pid) for pid in self._below if Path(f"/proc/{pid}").exists()]
        return found + [str(path) for path in (self._directory / "node").rglob("*.tmp")]


def workers(node: int) -> set[int]:
    """The processes below a node."""
    found: set[int] = set()
    todo = [node]
    while todo:
        pid = todo.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                below = [int(each) for each in (task / "children").read_text().split()]
                found.update(below)
                todo += below
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=900.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(
            Storm(
                Path(name),
                clients=options.clients,
                jobs=options.jobs,
                kills=options.kills,
                seconds=options.seconds,
            ).run()
        )


if __name__ == "__main__":
    main()
