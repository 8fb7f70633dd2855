"""Programs of real compilers, and attacks, through a node: each does there what `phase run` says it does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fixtures.components import COMPONENTS
from fixtures.hostile_jobs import HOSTILE, LIMITS, Hostile
from fixtures.modules import corpus
from phase.cli._outcome import exit_code
from phase.client import Result, Task
from phase.client.sync import SyncClient
from phase.identity import Identity
from phase.jobs.status import Exited, LimitHit, Rejected, Status, Trapped, explain
from tests.phase.node.conftest import CAT, wasm
from tests.phase.node.service import Node, begin

_RUNS = corpus.runs()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modules")


@pytest.fixture(scope="module")
def client(directory: Path) -> Iterator[SyncClient]:
    with SyncClient(Identity.load_or_create(directory / "client/identity.json")) as opened:
        yield opened


@pytest.fixture(scope="module")
def node(directory: Path, client: SyncClient) -> Iterator[Node]:
    found = begin(directory, "--allow", client.asynchronous.key, "--slots", "2")
    try:
        yield found
    finally:
        found.end()


@pytest.mark.parametrize("run", _RUNS, ids=lambda run: run.name)
def test_a_module_does_at_a_node_what_it_does_elsewhere(
    run: corpus.Run, node: Node, client: SyncClient
) -> None:
    module = corpus.built(run.module).read_bytes()
    task = Task(module=module, args=tuple(run.args), env=run.env, stdin=run.input)
    found = client.run(node.address, task)
    said = f"{found.stderr.decode('utf-8', 'replace')}{explain(found.status)}"
    # Its output's hash is the receipt's, or `run` would have raised.
    assert run.check(exit_code(found.status), found.receipt.stdout.sha256, said) == []
    assert found.receipt.stdout.sha256 == corpus.digest(found.stdout)


@pytest.mark.parametrize("hostile", [*HOSTILE, *COMPONENTS], ids=lambda hostile: hostile.name)
def test_an_attack_is_named_and_the_node_serves_on(hostile: Hostile, node: Node, client: SyncClient) -> None:
    found = client.start(_attack(client, node, hostile)).result(60)
    said = found.receipt
    assert _kind(found.status) in hostile.ends, explain(found.status)
    if isinstance(found.status, Rejected | Trapped):
        assert found.status.reason
    assert (said.status, said.node, said.requester) == (found.status, node.key, client.asynchronous.key)
    assert said.memory_bytes is None or said.memory_bytes <= LIMITS.memory_bytes
    assert said.fuel_used is None or said.fuel_used <= LIMITS.fuel
    assert said.stdout.length + said.stderr.length <= LIMITS.output_bytes
    honest = client.run(node.address, Task(module=wasm(CAT), stdin=b"still here"))
    assert (honest.status, honest.stdout) == (Exited(code=0), b"still here")
    assert node.process.poll() is None


async def _attack(client: SyncClient, node: Node, hostile: Hostile) -> Result:
    task = Task(module=hostile.module(), args=hostile.args, stdin=hostile.stdin, limits=LIMITS)
    source = _silent() if hostile.idle else None
    return await (await client.asynchronous.submit(node.address, task, source=source)).result()


async def _silent() -> AsyncIterator[bytes]:
    """Input of which nothing ever comes."""
    await asyncio.Event().wait()
    yield b""


def _kind(status: Status) -> str:
    return status.limit if isinstance(status, LimitHit) else type(status).__name__.lower()
