"""What strangers and hostile clients cost a node's authorised work, and whether each of them is refused.

    python -m bench.strangers [--strangers 10000] [--each-second 100]

A node with two slots; one client that it allows runs one small job after the other. Then the same while
others come by QUIC with keys that are not allowed, by TCP without a word, with requests that are repeated,
forged, of a key that is not allowed, too old or too large; and while a client that is allowed sends slowly,
sends messages that are too large, and never reads. They run at the lowest priority: their machines are not
this one. They come from eight addresses, not the client's, for two seconds of four, so that the work with
and without them shares whatever else the machine does. Prints what became of each kind, what the node
counted, its memory, the processor time of the strangers' own process, which runs here, too, and the rate of
the work as a part of the rate without them.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from wasmtime import wat2wasm

from bench import jobs
from phase.client import Client, Task
from phase.identity import Identity
from phase.node import requests
from phase.peer.address import Address
from phase.peer.errors import PeerError, RefusedError
from phase.peer.framing import Kind
from phase.peer.iroh import IrohTransport, Options

BUDGET = 0.9
#: Of those that connect by QUIC: endpoints, each with a key and an address of its own.
_ENDPOINTS = 8
#: Seconds in which they come, and then in which they do not.
_PULSE = 2.0
#: At a time.
_AT_ONCE = 16
#: Hostile requests that are repeated over and over, and those that take up to a minute each.
_SHARE, _SLOW = 10, 8
_TREE = Path(__file__).resolve().parents[1]
_HELLO = bytes(wat2wasm((_TREE / "fixtures/hello.wat").read_text()))


class Crowd:
    """All who are to be refused.

    Args:
        address: the node's.
        insider: a client that the node allows, and that is hostile.
        each_second: how many come in a second, at most.
    """

    def __init__(self, address: Address, insider: Identity, each_second: float) -> None:
        self._address, self._insider = address, insider
        self._each_second, self._next = each_second, 0.0
        host, _, port = address.hosts[0].rpartition(":")
        self._place = host, int(port)
        self.ended: Counter[str] = Counter()
        self._spent = requests.sign(insider, "GET", "/v1/jobs", node=address.key)

    async def come(self, count: int) -> None:
        """Come, so many together."""
        rare = max(count // _SHARE // 6, 1)
        kinds: list[tuple[str, int, Callable[[], Awaitable[str]]]] = [
            ("TCP without a word", 2 * count // _SHARE, self._wordless),
            ("replay", rare, self._replay),
            ("forged identity", rare, self._forged),
            ("key that is not allowed", rare, self._unknown),
            ("expired", rare, self._expired),
            ("no signature", rare, self._unsigned),
            ("body too large", rare, self._large),
        ]
        await self._request("GET", "/v1/jobs", self._spent)
        await asyncio.gather(
            self._by_quic(count - sum(number for _, number, _ in kinds)),
            *(self._many(*kind) for kind in kinds),
            self._many("slow body", _SLOW, self._slow, at_once=_SLOW),
            self._hostile_streams(),
        )

    async def _many(
        self, name: str, count: int, one: Callable[[], Awaitable[str]], at_once: int = 4
    ) -> None:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self._turn()
                try:
                    told = await one()
                except (OSError, PeerError, asyncio.IncompleteReadError) as error:
                    told = f"{type(error).__name__}: {error}"
                self.ended[f"{name}: {told}"] += 1

        await asyncio.gather(*(some() for _ in range(at_once)))

    async def _turn(self) -> None:
        """Wait until the next one may come."""
        now = time.monotonic()
        self._next = max(self._next, now) + 1 / self._each_second
        await asyncio.sleep(self._next - now)
        while not _coming():
            await asyncio.sleep(0.05)

    async def _by_quic(self, count: int) -> None:
        places = [Options(listen=(f"127.0.0.{2 + number}:0",)) for number in range(_ENDPOINTS)]
        members = [await IrohTransport.start(Identity.ephemeral(), place) for place in places]
        turn = iter(range(1 << 40))

        async def one() -> str:
            member = members[next(turn) % _ENDPOINTS]
            try:
                connection = await member.connect(self._address, 30.0)
            except RefusedError:
                return "refused unheard"
            told = await asyncio.wait_for(connection.closed(), 30.0)
            # Where the word of it is lost, the node's answer to whatever comes next is a reset.
            return "refused" if "not authorised" in told or "reset by peer" in told else told

        await self._many("QUIC", count, one, _AT_ONCE)
        for member in members:
            await member.close()

    async def _wordless(self) -> str:
        _, writer = await asyncio.open_connection(*self._place)
        writer.close()
        await writer.wait_closed()
        return "closed"

    async def _replay(self) -> str:
        return await self._request("GET", "/v1/jobs", self._spent)

    async def _forged(self) -> str:
        fields = requests.sign(Identity.ephemeral(), "GET", "/v1/jobs", node=self._address.key)
        return await self._request("GET", "/v1/jobs", fields | {"Phase-Key": self._insider.public_key})

    async def _unknown(self) -> str:
        fields = requests.sign(Identity.ephemeral(), "GET", "/v1/jobs", node=self._address.key)
        return await self._request("GET", "/v1/jobs", fields)

    async def _expired(self) -> str:
        at, nonce = str(int(time.time()) - 2 * requests.CLOCK_SECONDS), os.urandom(16).hex()
        key, empty = self._insider.public_key, hashlib.sha256().hexdigest()
        covered = requests.text(
            "GET", "/v1/jobs", node=self._address.key, key=key, at=at, nonce=nonce, sha256=empty
        )
        signature = self._insider.sign(covered).hex()
        fields = {"Phase-Key": key, "Phase-Time": at, "Phase-Nonce": nonce, "Phase-Signature": signature}
        return await self._request("GET", "/v1/jobs", fields)

    async def _unsigned(self) -> str:
        return await self._request("POST", "/v1/jobs", {"Content-Length": "100"})

    async def _large(self) -> str:
        fields = requests.sign(self._insider, "POST", "/v1/jobs", node=self._address.key)
        return await self._request("POST", "/v1/jobs", fields | {"Content-Length": str(1 << 30)})

    async def _slow(self) -> str:
        """The head of a request that never ends."""
        reader, writer = await asyncio.open_connection(*self._place)
        with contextlib.suppress(OSError):
            for letter in "GET /v1/jobs HTTP/1.1\r\nHost: slow\r\nX-Slow: " + "x" * 1000:
                writer.write(letter.encode())
                await writer.drain()
                if await _ended(reader, 1.0):
                    break
        writer.close()
        return "cut off"

    async def _request(self, method: str, target: str, fields: dict[str, str]) -> str:
        reader, writer = await asyncio.open_connection(*self._place)
        head = [f"{method} {target} HTTP/1.1", "Host: node", "Connection: close"]
        head += [f"{name}: {value}" for name, value in fields.items()]
        writer.write("\r\n".join([*head, "", ""]).encode())
        answer = await asyncio.wait_for(reader.read(1 << 16), 30.0)
        writer.close()
        return answer[9:12].decode("ascii", "replace")

    async def _hostile_streams(self) -> None:
        """Of a client that is allowed: too much, too slow, and nothing read."""
        member = await IrohTransport.start(self._insider, Options(listen=("127.0.0.1:0",)))
        connection = await member.connect(self._address, 30.0)

        async def large() -> str:
            stream = await connection.open()
            await stream.send(bytes((Kind.MESSAGE,)) + (1 << 30).to_bytes(4, "big"))
            return "refused" if b"the limit is" in await stream.receive(1 << 16) else "taken"

        async def slow() -> str:
            stream = await connection.open()
            await stream.send(bytes((Kind.MESSAGE,)) + (1000).to_bytes(4, "big") + b"{")
            told = await asyncio.wait_for(stream.receive(1 << 16), 60.0)
            return "refused" if b"no whole frame" in told else "taken"

        await self._many("message too large", _SLOW, large, _SLOW)
        await self._many("slow frame", _SLOW, slow, _SLOW)
        # One, because a client that is allowed may use the slots.
        await self._many("flood that is not read", 1, lambda: self._unread(member), 1)
        await member.close()

    async def _unread(self, member: IrohTransport) -> str:
        """A job that prints for ever, whose client reads nothing: it meets its wall limit."""
        from phase.jobs.limits import MAX_INTEGER, Limits
        from tests.phase.node.conftest import FLOOD, wasm

        limits = Limits(fuel=MAX_INTEGER, wall_seconds=10.0, output_bytes=1 << 30)
        made = await Client(member).submit(self._address, Task(module=wasm(FLOOD), limits=limits))
        await asyncio.sleep(12)
        await made.leave()
        return "ended"


async def _ended(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Whether the other side has closed within that time."""
    try:
        return not await asyncio.wait_for(reader.read(1 << 16), seconds)
    except TimeoutError:
        return False


#: What must have become of each kind.
_EXPECTED = {
    "QUIC": ("refused", "refused unheard"),
    "TCP without a word": ("closed",),
    # 429: too many connections of one address.
    "replay": ("401", "429"),
    "forged identity": ("401", "429"),
    "key that is not allowed": ("403", "429"),
    "expired": ("401", "429"),
    "no signature": ("401", "429"),
    "body too large": ("413", "429"),
    "slow body": ("cut off",),
    "message too large": ("refused",),
    "slow frame": ("refused",),
    "flood that is not read": ("ended",),
}


def _coming() -> bool:
    """Whether strangers come now; the clock is the same for all processes."""
    return not int(time.monotonic() / _PULSE) % 2


class _Rates:
    """Jobs and seconds, while strangers come and while they do not."""

    def __init__(self) -> None:
        self._jobs: Counter[bool] = Counter()
        self._seconds = {True: 0.0, False: 0.0}

    async def run(self, client: Client, node: str, until: Callable[[float], bool]) -> None:
        """Run jobs, one after the other, until something is so after so many seconds."""
        task, begun = Task(module=_HELLO, stdin=b"Hello, World"), time.perf_counter()
        while not until((now := time.perf_counter()) - begun):
            among = _coming()
            result = await client.run(node, task)
            assert result.stdout == b"dlroW ,olleH", result
            self._jobs[among] += 1
            self._seconds[among] += time.perf_counter() - now

    def each_second(self, among: bool) -> float:
        """Jobs a second."""
        return self._jobs[among] / max(self._seconds[among], 1e-9)


def _memory(pid: int) -> int:
    """MiB of a process that are resident."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


@contextlib.contextmanager
def _crowd(node: str, state: Path, count: int, each_second: float) -> Iterator["subprocess.Popen[str]"]:
    command = ["nice", "-n", "19", sys.executable, "-m", "bench.strangers", "--crowd", node]
    command += ["--state", str(state), "--strangers", str(count), "--each-second", str(each_second)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_TREE) as process:
        try:
            yield process
        finally:
            process.kill()


async def _measure(directory: Path, count: int, each_second: float) -> bool:
    friend = Identity.load_or_create(directory / "friend.json")
    insider = Identity.load_or_create(directory / "insider.json")
    (directory / "keys").write_text(f"{friend.public_key}\n{insider.public_key}\n")
    process, node = jobs._node(directory, str(directory / "keys"))
    try:
        async with Client.open(friend) as client:
            await _Rates().run(client, node, lambda after: after > 2)
            memory, rates, begun = _memory(process.pid), _Rates(), time.perf_counter()
            with _crowd(node, directory / "insider.json", count, each_second) as crowd:
                await rates.run(client, node, lambda _: crowd.poll() is not None)
                took, said = time.perf_counter() - begun, crowd.stdout.read() if crowd.stdout else ""
        host = Address.parse(node).hosts[0]
        status = json.loads(await asyncio.to_thread(_get, f"http://{host}/status"))
        return _told(json.loads(said or "{}"), status, rates, took, (memory, _memory(process.pid)))
    finally:
        process.terminate()
        process.communicate()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310  the node of this program
        return bytes(answer.read())


def _told(
    ended: dict[str, int],
    status: dict[str, object],
    rates: _Rates,
    took: float,
    memory: tuple[int, int],
) -> bool:
    for name, number in sorted(ended.items()):
        print(f"{number:6} {name}")
    for name in ("strangers", "refusals", "errors"):
        print(f"the node counts as {name}: {status.get(name)}")
    good = {f"{name}: {end}" for name, ends in _EXPECTED.items() for end in ends}
    wrong = {name: count for name, count in ended.items() if name not in good}
    alone, among = rates.each_second(False), rates.each_second(True)
    ratio, others = among / alone, sum(ended.values())
    print(f"node's memory: {memory[0]} MiB before, {memory[1]} MiB after {took:.0f} s with them")
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    part = (own.ru_utime + own.ru_stime) / took * 2
    print(f"{others} others; while they came, their own process took {part:.0%} of a processor")
    print(f"jobs a second: {alone:.0f} without them, {among:.0f} among them")
    print(f"{ratio:.2f}x of the rate without them (budget {BUDGET}); not refused as expected: {wrong or 0}")
    return ratio >= BUDGET and not wrong and bool(ended)


async def _come(node: str, state: Path, count: int, each_second: float) -> None:
    crowd = Crowd(Address.parse(node), Identity.load_or_create(state), each_second)
    await crowd.come(count)
    print(json.dumps(crowd.ended))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.strangers")
    parser.add_argument("--strangers", type=int, default=10_000)
    parser.add_argument("--each-second", type=float, default=100.0)
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(_TREE))
    if options.crowd:
        asyncio.run(_come(options.crowd, options.state, options.strangers, options.each_second))
        return 0
    with tempfile.TemporaryDirectory() as name:
        measured = _measure(Path(name), options.strangers, options.each_second)
        good = asyncio.run(measured)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
