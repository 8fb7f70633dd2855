"""What clients can have a node hold in memory: counted before it comes, for each of them and for all."""

import os
from pathlib import Path

import pytest

from phase.client import Client, RejectedError, Task
from phase.identity import Identity
from phase.jobs.receipt import Content
from phase.node import arriving, held
from phase.node.admission import Admission
from phase.node.errors import RefusedError
from phase.node.held import Held
from phase.peer.framing import Kind, pack
from phase.peer.messages import Accepted, Offer, Reason, Rejected, Request, frame
from tests.phase.node.conftest import CAT, CLIENT, LOOP, Start, said_by, streams, until, wasm

OTHER = Identity.from_seed(b"\3" * 32)
BOTH = Admission([CLIENT.public_key, OTHER.public_key])
MIB = 1 << 20


def _offer(module: bytes | None = None, job: str = "") -> bytes:
    """An offer of a job; without a module, of one whose module does not come."""
    content = Content(os.urandom(32).hex(), MIB) if module is None else Task(module=module).content
    return frame(Offer(job=job or os.urandom(8).hex(), module=content)) + frame(Request())


async def test_input_that_waits_is_counted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "CLIENT_BYTES", 3 * MIB)
    monkeypatch.setattr(held, "ALL_BYTES", 5 * MIB)
    async with start(slots=1, admission=BOTH) as scene:
        other = Client(scene.member(OTHER))
        jobs = []
        for client, count in ((scene.client, 2), (other, 2)):
            for number in range(count):
                task = Task(module=wasm(LOOP), stdin=bytes([number]) * MIB, seed=1)
                jobs.append((client, await client.submit(scene.address, task, detached=True)))
            with pytest.raises(RejectedError, match=r"quota used up \(this client's jobs"):
                await client.submit(scene.address, Task(module=wasm(LOOP), stdin=b"x" * MIB, seed=1))
        for client, submission in jobs:
            await client.cancel(scene.address, submission.job)
        await until(lambda: not scene.daemon.scheduler.queued + scene.daemon.scheduler.running)
        task = Task(module=wasm(CAT), stdin=b"x" * MIB, seed=1)
        assert len((await scene.client.run(scene.address, task)).stdout) == MIB
        await other.close()


def test_all_clients_together_are_bounded_and_a_module_counts_once() -> None:
    count, module = Held(100, 150), Content("a" * 64, 60)
    for client in ("one", "one"):
        count.take(client, module, 10)
    with pytest.raises(RefusedError) as caught:
        count.take("one", module, 30)
    assert caught.value.reason is Reason.QUOTA
    count.take("two", module, 0)
    with pytest.raises(RefusedError) as caught:
        count.take("three", Content("b" * 64, 60), 0)
    assert caught.value.reason is Reason.QUEUE_FULL
    first = bytes(bytearray(b"module"))
    assert count.shared(module, first) is count.shared(module, bytes(bytearray(b"module")))
    for client, own in (("one", 10), ("one", 10), ("two", 0)):
        count.give_back(client, module, own)
    later = bytes(bytearray(b"module"))
    assert count.shared(module, later) is later
    count.take("three", Content("b" * 64, 60), 40)


async def test_offers_whose_module_does_not_come_keep_out_nobody(start: Start) -> None:
    async with start(slots=1, queue=2, admission=BOTH) as scene:
        for frames in await streams(scene, 20):
            await frames.stream.send(_offer())
            assert isinstance(await said_by(frames), Accepted)
        other = Client(scene.member(OTHER))
        assert (await other.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"
        await other.close()
    assert scene.daemon.scheduler.queued == 0


async def test_a_sender_that_falls_silent_is_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "SILENT_SECONDS", 0.2)
    async with start() as scene:
        [frames] = await streams(scene, 1)
        await frames.stream.send(_offer() + pack(Kind.MODULE, b"x"))
        assert isinstance(await said_by(frames), Accepted)
        said = await said_by(frames)
        assert isinstance(said, Rejected)
        assert "no whole frame within 0.2 s" in said.detail
        assert scene.daemon.scheduler.queued == 0


async def test_modules_on_their_way_are_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving, "MODULE_BYTES", (MIB, 2 * MIB))
    async with start() as scene:
        first, second = await streams(scene, 2)
        await first.stream.send(_offer())
        assert isinstance(await said_by(first), Accepted)
        await second.stream.send(_offer())
        said = await said_by(second)
        assert isinstance(said, Rejected)
        assert said.reason is Reason.QUOTA


async def test_a_module_is_asked_for_once_by_jobs_of_one_client(start: Start, tmp_path: Path) -> None:
    module = wasm(CAT)
    async with start() as scene:
        first, second = await streams(scene, 2)
        await first.stream.send(_offer(module, "a"))
        asked = await said_by(first)
        await second.stream.send(_offer(module, "b"))
        await until(lambda: scene.daemon.scheduler.queued == 2)
        await first.stream.send(pack(Kind.MODULE, module))
        then = await said_by(second)
        assert isinstance(asked, Accepted)
        assert isinstance(then, Accepted)
        assert (asked.send_module, then.send_module) == (True, False)
