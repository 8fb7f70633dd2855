"""Nodes that are found in the DHT by what they can do: `phase peers`, `phase job submit --dht`."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from phase.cli import job, peers
from phase.identity import Identity
from phase.node.capacity import machine
from phase.peer.iroh import IrohTransport, Options
from phase.peer.transport import Address
from tests.networks import cable, hosts
from tests.phase.node.conftest import CAT, wasm
from tests.phase.node.service import Node, begin


@pytest.fixture
def dht() -> Iterator[str]:
    """A node of the DHT to begin with, in a process of its own."""
    program = (
        "import asyncio\n"
        "from phase.discovery.dht import Dht\n"
        "from phase.peer.records import read_any\n"
        "async def main():\n"
        "    own = Dht(serves=True, read=read_any)\n"
        "    print(await own.start('127.0.0.1', 0), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


@pytest.fixture
def node(tmp_path: Path, dht: str) -> Iterator[Node]:
    client = Identity.load_or_create(tmp_path / "client/identity.json")
    found = begin(tmp_path, "--allow", client.public_key, "--dht", dht)
    try:
        yield found
    finally:
        found.end()


def _peers(dht: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [
        sys.executable,
        "-m",
        "phase",
        "peers",
        "--dht",
        dht,
        "--no-mdns",
        "--timeout",
        "2",
        "--json",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


async def test_a_node_is_a_relay_if_it_is_told(tmp_path: Path) -> None:
    node = begin(tmp_path, "--relay-for", "open")
    try:
        url = f"http://{node.address.partition('@')[2].split(',')[0]}"
        ends = [
            await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",), relays=(url,)))
            for _ in range(2)
        ]
        connection = await ends[0].connect(Address(ends[1].key, (), (url,)), 20)
        assert (await ends[1].accept()).peer == ends[0].key
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
            assert "phase_relay_members 2" in await answer.text()
        await connection.close()
        for each in ends:
            await each.close()
        node.process.terminate()
        assert await asyncio.to_thread(node.process.wait, 20) == 0
    finally:
        node.end()


def test_a_node_is_found_on_the_local_network(tmp_path: Path) -> None:
    with hosts(2) as (one, other):
        cable(one, "eth0", other, "eth0")
        for number, host in ((1, one), (2, other)):
            host.ip(f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")
        state = str(tmp_path)
        with one.python("-m", "phase", "node", "--state", state, "--listen", "192.0.2.1:8470") as node:
            assert node.stdout is not None
            key = node.stdout.readline().split()[1].partition("@")[0]
            said = other.phase("peers", "--timeout", "4", "--json")
            none = other.phase("peers", "--timeout", "1", "--arch", "arm64", "--memory", "4096")
            node.terminate()
    (found,) = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert (found["node"], found["address"]) == (key, f"{key}@192.0.2.1:8470")
    assert (found["arch"], found["expires"]) == (machine(), 0)
    assert "no node with wasi-preview1" in none


def _published(dht: str) -> "subprocess.CompletedProcess[str]":
    """Wait until the DHT has a node; what it says of it."""
    deadline = time.monotonic() + 40
    while (said := _peers(dht)).returncode and time.monotonic() < deadline:
        time.sleep(0.2)
    return said


@pytest.mark.timeout(90)
def test_a_job_waits_no_longer_than_it_takes_to_find_a_node(
    node: Node, dht: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _published(dht).returncode == 0
    monkeypatch.setattr(peers, "SECONDS", 3600.0)
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    words = ["submit", "--dht", dht, "--no-stdin", "--state", str(tmp_path / "client"), str(module)]
    done = CliRunner().invoke(job.command, words)
    assert done.exit_code == 0, done.output


def test_a_job_finds_its_node_by_what_it_can_do(node: Node, dht: str, tmp_path: Path) -> None:
    said = _published(dht)
    peer = json.loads(said.stdout.splitlines()[0])
    assert (peer["node"], peer["arch"]) == (node.key, machine())
    assert peer["slots"] > 0
    assert _peers(dht, "--memory", "4096").returncode == (peer["memory"] < 4096)
    other = "arm64" if machine() == "x86_64" else "x86_64"
    assert _peers(dht, "--arch", other).returncode == 1
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    done = node.job("submit", "--dht", dht, "--arch", machine(), str(module), stdin=b"found")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"found", b"")
    none = node.job("submit", "--dht", dht, "--arch", other, str(module))
    assert (none.returncode, b"no node with wasi-preview1" in none.stderr) == (161, True)
