"""Providers in the DHT: real nodes and real commands, each on a host of its own on loopback."""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase.cli.discover import command as discover_command
from phase.cli.provider import command as provider_command
from phase.discovery import DiscoveryError, Provider, discover
from phase.provider import announce, serve
from phase.provider.announce import Options
from phase.provider.status import DhtTold
from phase.provider.store import Store
from tests.phase.provider.conftest import Publish


@pytest.fixture
def net() -> str:
    """The first three numbers of addresses that no other test uses at this time."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"


@asynccontextmanager
async def announcing(
    store: Store, host: str, port: int = 8080, peers: tuple[tuple[str, int], ...] = (), address: str = ""
) -> AsyncIterator[DhtTold]:
    told = DhtTold()
    task = asyncio.create_task(
        announce.announce(store, told, Options(peers, address), hosts=[host], port=port)
    )
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(done: object, told: DhtTold) -> None:
    assert callable(done)
    for _ in range(400):
        if done():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(told)


def look(*peers: tuple[str, int], timeout: float = 10, gather: float | None = 0.0) -> list[Provider]:
    return list(discover("stable", "x86_64", mdns=False, dht=peers, timeout=timeout, gather=gather))


async def test_a_provider_is_found_through_another(publish: Publish, net: str) -> None:
    store = Store(publish())
    first = (f"{net}.1", 8080)
    async with announcing(store, *first) as one, announcing(store, f"{net}.2", 8081, (first,)) as two:
        await until(lambda: two.keepers == 1, two)
        assert (two.address, two.problem, two.nodes) == (f"{net}.2:8081", "", 1)
        assert one.running
        found = await asyncio.to_thread(look, first, gather=1.0)
        assert {(each.url, each.version, each.source) for each in found} == {
            (f"http://{net}.1:8080", 1, "dht"),
            (f"http://{net}.2:8081", 1, "dht"),
        }
    assert not two.running


async def test_a_new_release_is_told_at_once(publish: Publish, net: str) -> None:
    store = Store(publish())
    first = (f"{net}.1", 8080)
    async with announcing(store, *first) as told:
        await until(lambda: told.held == 1, told)
        publish("2.0.0")

        def newer() -> bool:
            store.current()
            return [each.version for each in look(first)] == [2]

        for _ in range(40):
            if await asyncio.to_thread(newer):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(told)


async def test_where_nobody_answers_it_says_so_and_serves_on(publish: Publish, net: str) -> None:
    store = Store(publish())
    async with announcing(store, f"{net}.1", 8080, ((f"{net}.99", 9),)) as told:
        await until(lambda: "no DHT node answers" in told.problem, told)
        assert f"{net}.99:9" in told.problem
        # It is a node all the same.
        assert await asyncio.to_thread(look, (f"{net}.1", 8080))


async def test_an_address_that_is_not_its_own_is_kept_by_nobody(publish: Publish, net: str) -> None:
    store = Store(publish())
    first = (f"{net}.1", 8080)
    async with announcing(store, *first), announcing(store, f"{net}.2", 8080, (first,), "192.0.2.7") as told:
        await until(lambda: "keeps 192.0.2.7" in told.problem, told)
        assert told.keepers == 0


async def test_a_port_that_is_taken_stops_no_provider(publish: Publish, net: str) -> None:
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            publish(), bind=f"{net}.1", port=0, mdns=False, dht=Options(), ready=port.set_result, stop=stop
        )
    )
    number = await asyncio.wait_for(port, 10)
    told = DhtTold()
    try:
        # A second node on the same UDP port: by then the first one has it.
        for _ in range(100):
            if await asyncio.to_thread(look, (f"{net}.1", number), timeout=0.3):
                break
        with pytest.raises(DiscoveryError):
            await announce.announce(
                Store(publish("2.0.0")), told, Options(), hosts=[f"{net}.1"], port=number
            )
        assert "cannot be listened on" in told.problem
    finally:
        stop.set()
        await task


def test_nothing_is_left_behind(net: str) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    threads, before = threading.active_count(), descriptors()
    assert look((f"{net}.9", 9), timeout=0.3) == []
    assert threading.active_count() == threads
    assert descriptors() == before


@contextlib.contextmanager
def serving(repository: Path, host: str, *options: str) -> Iterator[str]:
    words = [sys.executable, "-m", "phase", "serve", "--artifacts", str(repository), "--bind", host]
    words += ["--port", "0", "--no-mdns", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


def test_the_commands(publish: Publish, net: str) -> None:
    repository = publish()
    with serving(repository, f"{net}.1") as first:
        peer = first.removeprefix("http://")
        with serving(repository, f"{net}.2", "--dht", peer) as second:
            words = ["--no-mdns", "--dht", peer, "--arch", "x86_64", "--timeout", "5", "--json"]
            urls: set[str] = set()
            for _ in range(10):
                told = CliRunner().invoke(discover_command, words)
                urls |= {json.loads(line)["url"] for line in told.output.splitlines() if line[0] == "{"}
                if len(urls) == 2:
                    break
            assert urls == {first, second}
            status = CliRunner().invoke(provider_command, ["status", "--addr", second, "--json"])
            found = json.loads(status.output)["dht"]
            assert (found["running"], found["nodes"], found["address"]) == (True, 1, second[7:])
            page = CliRunner().invoke(provider_command, ["status", "--addr", second])
            assert "DHT with 1 nodes" in page.output


def test_a_node_that_is_none_is_said(publish: Publish) -> None:
    for text in ("host", "host:0", "host:99999", ":80", "a b:80", "[::1]:80", "x" * 300 + ":1"):
        told = CliRunner().invoke(discover_command, ["--dht", text])
        assert told.exit_code == 2
        assert "is not a DHT node" in told.output


async def test_a_clock_that_is_set_right_makes_it_say_everything_again(
    publish: Publish, net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was signed in 1970 has expired for everybody else."""
    store = Store(publish())
    first = (f"{net}.1", 8080)
    ahead = [-1_700_000_000.0]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead[0])
    async with announcing(store, *first) as told:
        await until(lambda: told.held == 1, told)
        assert await asyncio.to_thread(look, first, timeout=1.0) == []
        ahead[0] = 0.0
        found = await asyncio.to_thread(look, first, timeout=20)
        assert [each.version for each in found] == [1]
