"""A warm remote job on loopback, from submit to verified receipt: how long, how many a second, and in what.

A node with two slots in a process of its own, real QUIC, a journal on disk; the module is there already.
First one job at a time, then many at a time. The parts of one job: what the receipt says of the worker, one
round trip of the same transport (the question `describe`), signing and verifying one receipt. The rest is
Python at both ends, the journal's fsync and waiting for the processor.

Also printed is the processor time of a job, by process and by kind of thread: on a busy machine only that
means something, and it is larger there, too. Client, node and workers share the processors: two of them do
300 jobs a second where a job takes no more than 6.7 ms of their time.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from wasmtime import wat2wasm

from phase.client import Client, Task
from phase.identity import Identity
from phase.jobs import receipt as receipts

_TREE = Path(__file__).resolve().parents[1]
#: Milliseconds, and jobs a second.
P50, P99, RATE = 5.0, 20.0, 300.0
_TICK = os.sysconf("SC_CLK_TCK")


def _node(directory: Path, client: str) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "phase", "node", "--state", str(directory / "node"), "--slots", "2"]
    command += ["--listen", "127.0.0.1:0", "--allow", client, "--quota", "1000", "--queue", "1000"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=_TREE)
    assert process.stdout is not None
    said = process.stdout.readline()
    return process, said.split()[1]


def _ms(seconds: list[float]) -> str:
    ordered = sorted(1000 * each for each in seconds)
    return f"p50 {statistics.median(ordered):6.2f} ms  p99 {ordered[int(len(ordered) * 0.99)]:6.2f} ms"


async def _one_by_one(client: Client, node: str, task: Task, count: int) -> list[float]:
    took, worker = [], []
    for _ in range(count):
        begun = time.perf_counter()
        result = await client.run(node, task)
        took.append(time.perf_counter() - begun)
        worker.append(result.receipt.wall_ms / 1000)
    print(f"one at a time      {_ms(took)}")
    print(f"  of it worker     {_ms(worker)}")
    return took


async def _round_trips(client: Client, node: str, count: int) -> None:
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        await client.describe(node)
        took.append(time.perf_counter() - begun)
    print(f"  round trip       {_ms(took)}")


def _signatures(envelope: bytes, identity: Identity, key: str, count: int) -> None:
    receipt = receipts.verify(envelope, key=key)
    begun = time.perf_counter()
    for _ in range(count):
        receipts.issue(receipt, identity)
    signed = time.perf_counter()
    for _ in range(count):
        receipts.verify(envelope, key=key)
    verified = time.perf_counter()
    sign, verify = (1000 * each / count for each in (signed - begun, verified - signed))
    print(f"  sign {sign:.2f} ms, verify {verify:.2f} ms")


class _Spent:
    """Processor milliseconds so far, by who spent them.

    Args:
        node: number of its process.
    """

    def __init__(self, node: int) -> None:
        found = Path(f"/proc/{node}/task/{node}/children").read_text().split()
        self._node, self._zygote = node, int(found[0])

    def now(self) -> dict[str, float]:
        """Of threads that live; of workers that have ended."""
        found = _threads("client", os.getpid()) | _threads("node", self._node)
        fields = Path(f"/proc/{self._zygote}/stat").read_text().rpartition(")")[2].split()
        user, system, ended_user, ended_system = (int(field) * 1000 / _TICK for field in fields[11:15])
        return found | {"zygote": user + system, "workers": ended_user + ended_system}


def _threads(name: str, process: int) -> dict[str, float]:
    """Of the event loop, of the transport's own thread, and of all others (those of jobs)."""
    found: dict[str, float] = defaultdict(float)
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            kind = "transport" if "async" in (thread / "comm").read_text() else "other threads"
            part = "loop" if thread.name == str(process) else kind
            found[f"{name}'s {part}"] += int((thread / "schedstat").read_text().split()[0]) / 1e6
    return found


async def _many(client: Client, node: str, task: Task, count: int, at_once: int, spent: _Spent) -> float:
    left, before = iter(range(count)), spent.now()

    async def some() -> None:
        for _ in left:
            await client.run(node, task)

    begun = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(at_once)))
    rate = count / (time.perf_counter() - begun)
    print(f"{at_once} at a time       {rate:.0f} jobs a second")
    each = {part: (now - before.get(part, 0.0)) / count for part, now in spent.now().items()}
    print(f"  processor time of a job {sum(each.values()):.2f} ms, of it:")
    for part, took in sorted(each.items(), key=lambda found: -found[1]):
        if took >= 0.01:
            print(f"    {part:22} {took:5.2f} ms")
    return rate


async def _measure(directory: Path, count: int, at_once: int) -> bool:
    identity = Identity.load_or_create(directory / "identity.json")
    process, node = _node(directory, identity.public_key)
    try:
        async with Client.open(identity) as client:
            module = bytes(wat2wasm((_TREE / "fixtures/hello.wat").read_text()))
            task = Task(module=module, stdin=b"Hello, World")
            for _ in range(20):
                last = await client.run(node, task)
            took = await _one_by_one(client, node, task, count)
            await _round_trips(client, node, count)
            _signatures(last.envelope, identity, last.node, 200)
            rate = await _many(client, node, task, 2 * count, at_once, _Spent(process.pid))
    finally:
        process.terminate()
        process.communicate()
    ordered = sorted(took)
    p50, p99 = 1000 * statistics.median(ordered), 1000 * ordered[int(len(ordered) * 0.99)]
    print(
        f"{p50 / P50:.2f}x of {P50:g} ms, {p99 / P99:.2f}x of {P99:g} ms, {rate / RATE:.2f}x of {RATE:g}/s"
    )
    return p50 <= P50 and p99 <= P99 and rate >= RATE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(_TREE))
    with tempfile.TemporaryDirectory() as name:
        good = asyncio.run(_measure(Path(name), options.count, options.at_once))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
