"""Jobs over several nodes: executor, synchronous client and copies, with real nodes and real QUIC."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from phase.client import Client, Task
from phase.client import copies as copying
from phase.client.copies import DisagreedError
from phase.client.executor import PeerExecutor, run
from phase.client.spread import Spread
from phase.client.sync import SyncClient
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.status import Exited
from phase.peer.errors import PeerError
from tests import pages
from tests.phase.node.conftest import CAT, wasm
from tests.phase.node.service import Node, begin

_CHANCE = bytes(wat2wasm((pages.PROJECT / "fixtures/chance.wat").read_text()))


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load_or_create(tmp_path / "client/identity.json")


@pytest.fixture
def nodes(tmp_path: Path, identity: Identity) -> Iterator[list[Node]]:
    found = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            found.append(
                begin(tmp_path / name, "--allow", identity.public_key, "--slots", "1", "--queue", "0")
            )
        yield found
    finally:
        for each in found:
            each.end()


def test_an_executor_runs_tasks_on_all_nodes_and_waits_for_room(
    nodes: list[Node], identity: Identity
) -> None:
    tasks = [Task(module=wasm(CAT), stdin=b"%d" % number) for number in range(12)]
    with PeerExecutor(identity, [each.address for each in nodes]) as executor:
        assert [each.stdout for each in executor.map(run, tasks)] == [each.stdin for each in tasks]
        used = {executor.submit(task).result().node for task in tasks}
        with pytest.raises(TypeError):
            executor.submit(print)
    assert used <= {each.key for each in nodes}
    with pytest.raises(RuntimeError):
        executor.submit(tasks[0])


def test_an_executor_has_so_many_jobs_and_no_more(nodes: list[Node], identity: Identity) -> None:
    with PeerExecutor(identity, [each.address for each in nodes], waiting=2) as executor:
        for _ in range(6):
            executor.submit(Task(module=wasm(CAT), stdin=b"x"))
            assert len(executor._futures) <= 2


def test_a_node_that_is_gone_is_passed_over(nodes: list[Node], identity: Identity) -> None:
    nodes[0].end()
    with SyncClient(identity, connect_seconds=2.0) as client:
        spread = Spread(client.asynchronous, [each.address for each in nodes])
        result = client.start(spread.run(Task(module=wasm(CAT), stdin=b"x"))).result()
        assert (result.stdout, result.node) == (b"x", nodes[1].key)
        with pytest.raises(PeerError):
            client.run(nodes[0].address, Task(module=wasm(CAT)))


def test_a_program_without_asyncio_detaches_and_fetches(nodes: list[Node], identity: Identity) -> None:
    with SyncClient(identity) as client:
        job, asked = client.detach(nodes[0].address, Task(module=wasm(CAT), stdin=b"kept"))
        assert client.fetch(nodes[0].address, job, asked).stdout == b"kept"
        assert client.status(nodes[0].address, job).status == Exited(0)
        assert [each.job for each in client.jobs(nodes[0].address)] == [job]
        assert client.describe(nodes[0].address).node == nodes[0].key
    with pytest.raises(RuntimeError):
        client.run(nodes[0].address, Task(module=wasm(CAT)))


async def test_nodes_that_compute_the_same_agree(nodes: list[Node], identity: Identity) -> None:
    async with Client.open(identity) as client:
        places = [each.address for each in nodes]
        agreed = await copying.run(client, places, Task(module=_CHANCE, seed=3), 2)
        assert {each.node for each in agreed.agreed} == {each.key for each in nodes}
        assert agreed.others == ()
        nodes[1].end()
        short = Client(client._transport, connect_seconds=2.0)
        with pytest.raises(DisagreedError) as caught:
            await copying.run(short, places, Task(module=_CHANCE, seed=3), 2)
        assert (len(caught.value.sides), list(caught.value.failed)) == (1, [nodes[1].key])


async def test_nodes_that_disagree_are_shown_with_their_receipts(
    nodes: list[Node], identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds stand for two nodes of which one lies."""
    async with Client.open(identity) as client:
        results = [
            await client.run(each.address, Task(module=_CHANCE, seed=seed))
            for seed, each in enumerate(nodes, 1)
        ]
        answers = iter(results)

        async def lying(*_: object, **__: object) -> object:
            return next(answers)

        monkeypatch.setattr(client, "run", lying)
        with pytest.raises(DisagreedError) as caught:
            await copying.run(client, [each.address for each in nodes], Task(module=_CHANCE, seed=1), 2)
    assert [len(side) for side in caught.value.sides] == [1, 1]
    assert {side[0].envelope for side in caught.value.sides} == {each.envelope for each in results}


def test_copies_on_the_command_line(nodes: list[Node], identity: Identity, tmp_path: Path) -> None:
    module, receipt = tmp_path / "chance.wasm", tmp_path / "all.jsonl"
    module.write_bytes(_CHANCE)
    client = Node(nodes[0].process, nodes[0].address, tmp_path)
    places = [word for each in nodes for word in ("--node", each.address)]
    words = ("submit", "--no-stdin", *places, "--copies", "2/2", "--receipt", str(receipt))
    done = client.job(*words, "--seed", "3", str(module))
    assert (done.returncode, done.stderr) == (0, b"")
    envelopes = receipt.read_bytes().splitlines()
    for key, envelope in zip([each.key for each in nodes], envelopes, strict=True):
        assert receipts.verify(envelope, key=key, stdout=done.stdout).seed == 3
    assert client.job(*words, str(module)).returncode == 129
    nodes[1].end()
    alone = client.job(*words, "--seed", "3", str(module))
    assert (alone.returncode, b"2 nodes must give the same result" in alone.stderr) == (165, True)
