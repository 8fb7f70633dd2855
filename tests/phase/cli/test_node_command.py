"""`phase node` in this process: who may bring jobs, within which limits, and what it says at first."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phase.client import Client, RejectedError, Task
from phase.identity import Identity
from phase.jobs.limits import MIB
from phase.node import daemon
from phase.peer.messages import Description, Reason
from tests.phase.cli.conftest import Inside
from tests.phase.cli.services import when_ready
from tests.phase.node.conftest import CAT, wasm


def test_a_node_takes_jobs_of_those_whom_it_is_told_within_its_limits(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:  # fmt: skip
    mine, state = Identity.ephemeral(), tmp_path / "state"

    async def ask(address: str) -> tuple[Description, bytes, Reason]:
        async with Client.open(mine) as client:
            told = await client.describe(address)
            done = await client.run(address, Task(module=wasm(CAT), stdin=b"Hello"))
        async with Client.open(Identity.ephemeral()) as stranger:
            with pytest.raises(RejectedError) as refused:
                await stranger.describe(address)
        return told, done.stdout, refused.value.reason

    def act() -> tuple[dict[str, Any], tuple[Description, bytes, Reason]]:
        said = json.loads(capfdbinary.readouterr().out)
        return said, asyncio.run(ask(said["address"]))

    words = ("node", "--state", str(state), "--listen", "127.0.0.1:0", "--no-mdns", "--json")
    limits = ("--slots", "1", "--queue", "7", "--job-memory", "300", "--allow", mine.public_key)
    with when_ready(tmp_path, monkeypatch, act) as done:
        assert inside(*words, *limits).code == 0
    said, (told, output, reason) = done.result()
    key = Identity.load(state / "identity.json").public_key
    assert said == {"node": key, "address": f"{key}@{','.join(said['hosts'])}", "hosts": said["hosts"]}
    assert said["hosts"][0].startswith("127.0.0.1:")
    assert (told.slots, told.queue, told.memory_bytes) == (1, 7, 300 * MIB)
    assert (output, reason) == (b"Hello", Reason.NOT_AUTHORISED)


@pytest.mark.parametrize("words", [(), ("--open",), ("--allow", "a" * 64)])
def test_people_are_told_where_it_is_and_that_nobody_may_bring_jobs(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    given: dict[str, daemon.Options] = {}

    async def run(options: daemon.Options, *, ready: Callable[[str], None], stopping: object) -> None:
        given["options"] = options
        ready("key@one:1,two:2")

    monkeypatch.setattr(daemon, "run", run)
    more = ("--relay", "http://relay", "--relay-for", "open", "--dht", "127.0.0.1:1")
    limits = ("--quota", "3", "--job-wall", "20")
    done = inside("node", "--state", str(tmp_path), *words, *more, *limits)
    nobody = "" if words else "no client may bring jobs: --allow KEY, or --open\n"
    assert (done.code, done.out.decode()) == (0, f"node key@one:1,two:2\n{nobody}")
    options = given["options"]
    assert (options.listen, options.relays) == (("0.0.0.0:8470", "[::]:8470"), ("http://relay",))
    assert (options.dht, options.mdns, options.relay_for) == ((("127.0.0.1", 1),), True, ("open",))
    assert (options.capacity.client_jobs, options.capacity.wall_seconds) == (3, 20.0)
    assert options.state == tmp_path
    alone = inside("node", "--state", str(tmp_path), *words, *more, "--no-dht", "--no-mdns")
    assert (alone.code, given["options"].dht, given["options"].mdns) == (0, (), False)


def test_a_node_that_nobody_reaches_by_an_address_says_its_key_alone(
    inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(_: daemon.Options, *, ready: Callable[[str], None], stopping: object) -> None:
        ready("key")

    monkeypatch.setattr(daemon, "run", run)
    done = inside("node", "--state", str(tmp_path), "--json")
    assert json.loads(done.out) == {"node": "key", "address": "key", "hosts": []}
