"""Jobs of clients, from the offer to the verified receipt: real workers, transports in memory."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest
from wasmtime import wat2wasm

from phase.client import Client, NotRunError, RejectedError, Task
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.limits import Limits
from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Trapped
from phase.node.admission import Admission
from phase.peer.framing import Frames, Kind, pack
from phase.peer.messages import Offer, Reason, Request, State, frame
from tests import pages
from tests.phase.node.conftest import CAT, CLIENT, COPY, FLOOD, LOOP, NODE, Start, until, wasm


async def test_a_job_gives_its_output_and_a_receipt_that_holds(start: Start) -> None:
    async with start() as scene:
        task = Task(module=wasm(CAT), args=("a", "b"), env={"NAME": "value"}, stdin=b"Hello")
        result = await scene.client.run(scene.address, task, job="job-1")
    assert (result.status, result.stdout, result.stderr) == (Exited(0), b"Hello", b"")
    said = receipts.verify(result.envelope, key=NODE.public_key, job_id="job-1", stdout=b"Hello")
    assert (said.args, said.env, said.module) == (task.args, task.env, task.content)
    assert said.job.nonce


async def test_what_a_job_had_is_freed_without_the_collector(start: Start) -> None:
    async with start() as scene:
        made = await scene.client.submit(scene.address, Task(module=wasm(CAT), stdin=b"Hello"))
        await made.result()
        gone = weakref.ref(made)
        gc.disable()
        try:
            del made
            assert gone() is None
        finally:
            gc.enable()


async def test_a_receipt_says_who_asked_and_a_deterministic_job_is_the_same_everywhere(start: Start) -> None:
    module = bytes(wat2wasm((pages.PROJECT / "fixtures/chance.wat").read_text()))
    async with start() as scene:
        found = [
            await scene.client.run(scene.address, Task(module=module, seed=seed, stdin=b"x" * 100_000))
            for seed in (7, 7, 8)
        ]
    assert [each.receipt.requester for each in found] == [CLIENT.public_key] * 3
    assert [each.receipt.seed for each in found] == [7, 7, 8]
    assert found[0].stdout == found[1].stdout != found[2].stdout


async def test_files_go_there_and_back_and_are_in_the_receipt(start: Start) -> None:
    """Copies /input/in to /output/out; `none` is asked for, and not left."""
    inputs = {"in": b"x" * 100_000, "empty": b""}
    task = Task(module=wasm(COPY), inputs=inputs, outputs=("out", "none"))
    async with start() as scene:
        made = await scene.client.submit(scene.address, task)
        result = await made.result()
        assert (result.status, result.files) == (Exited(0), {"out": inputs["in"][:65_536]})
        assert set(result.receipt.inputs) == {"in", "empty"}
        assert [each.length for each in result.receipt.outputs.values()] == [65_536]
        await scene.client.submit(scene.address, task, job="kept", detached=True)
        kept = await scene.client.fetch(scene.address, "kept")
        assert kept.files == result.files
        assert scene.daemon.blobs.has(CLIENT.public_key, task.asked("", "").inputs["in"].sha256)


async def test_a_module_is_sent_once(start: Start) -> None:
    async with start() as scene:
        for _ in range(2):
            await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))
        assert scene.daemon.blobs.has(CLIENT.public_key, Task(module=wasm(CAT)).content.sha256)
        first = await scene.client.submit(scene.address, Task(module=wasm(CAT)))
        assert first.sent_module is False
        await first.result()


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
async def test_input_of_any_size_goes_there_and_back(start: Start, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    async with start() as scene:
        result = await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=data[:size]))
    assert result.stdout == data[:size]
    assert (result.status, result.receipt.stdin.length) == (Exited(0), size)


async def test_output_arrives_while_the_job_waits_for_input(start: Start) -> None:
    more: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def source() -> AsyncIterator[bytes]:
        while (part := await more.get()) is not None:
            yield part

    async with start() as scene:
        made = await scene.client.submit(scene.address, Task(module=wasm(CAT)), source=source())
        outputs = made.outputs()
        for part in (b"one", b"two"):
            more.put_nowait(part)
            assert await anext(outputs) == ("stdout", part)
        more.put_nowait(None)
        result = await made.result()
    assert result.receipt.stdout.length == result.receipt.stdin.length == 6


@pytest.mark.parametrize(
    ("body", "limits", "status"),
    [
        (LOOP, Limits(fuel=1000), LimitHit("fuel")),
        (LOOP, Limits(wall_seconds=0.3), LimitHit("wall")),
        (FLOOD, Limits(output_bytes=1000), LimitHit("output")),
        ('(memory (export "memory") 1) (func (export "_start") unreachable)', Limits(), Trapped),
        ('(memory (export "memory") 1) (func (export "other"))', Limits(), Rejected),
    ],
)
async def test_what_a_module_does_is_a_result_with_a_receipt(
    start: Start, body: str, limits: Limits, status: object
) -> None:
    async with start() as scene:
        result = await scene.client.run(scene.address, Task(module=wasm(body), limits=limits))
        assert result.status == status or isinstance(result.status, status)  # type: ignore[arg-type]
        assert result.receipt.status == result.status
        assert (await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=b"y"))).stdout == b"y"


async def test_strangers_are_refused_by_name(start: Start) -> None:
    async with start(admission=Admission()) as scene:
        with pytest.raises(RejectedError) as caught:
            await scene.client.run(scene.address, Task(module=wasm(CAT)))
        assert caught.value.reason is Reason.NOT_AUTHORISED
        assert str(caught.value).startswith("the node refuses: not authorised. Its owner can allow your key")


async def test_an_open_node_serves_anyone(start: Start) -> None:
    async with start(admission=Admission(anyone=True)) as scene:
        other = Client(scene.member())
        assert (await other.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Task(module=b"x", arch="arm64"), Reason.ARCH_MISMATCH),
        (Task(module=b"x", runtime="python"), Reason.RUNTIME_NOT_SUPPORTED),
        (Task(module=b"x", limits=Limits(memory_bytes=2 << 30)), Reason.INSUFFICIENT_RESOURCES),
        (Task(module=b"x", limits=Limits(wall_seconds=80_000)), Reason.INSUFFICIENT_RESOURCES),
        (Task(module=b"xx", limits=Limits(module_bytes=1)), Reason.INVALID_REQUEST),
        (Task(module=b"x", args=("a" * 200_000,)), Reason.INVALID_REQUEST),
        (Task(module=b"x", seed=1, stdin=b"x" * (17 << 20)), Reason.INVALID_REQUEST),
    ],
)
async def test_what_does_not_suit_is_refused_by_name(
    start: Start, task: Task, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phase.node.capacity.machine", lambda: "x86_64")
    async with start() as scene:
        with pytest.raises(RejectedError) as caught:
            await scene.client.run(scene.address, task)
        assert caught.value.reason is reason
        assert scene.daemon.scheduler.queued == 0


async def test_an_id_is_taken_once(start: Start) -> None:
    async with start() as scene:
        await scene.client.run(scene.address, Task(module=wasm(CAT)), job="same")
        with pytest.raises(RejectedError) as caught:
            await scene.client.run(scene.address, Task(module=wasm(CAT)), job="same")
        assert (caught.value.reason, caught.value.detail) == (
            Reason.DUPLICATE,
            "this client's job of this id is done",
        )


async def test_a_running_job_is_cancelled(start: Start) -> None:
    async with start() as scene:
        made = await scene.client.submit(scene.address, Task(module=wasm(LOOP)), job="long")
        await until(lambda: scene.daemon.scheduler.running == 1)
        await made.cancel()
        result = await made.result()
        assert isinstance(result.status, Killed)
        assert result.status.reason == "cancelled by its requester"
        assert scene.daemon.scheduler.running == 0


async def test_a_waiting_job_is_cancelled_and_never_runs(start: Start) -> None:
    async with start(slots=1) as scene:
        first = await scene.client.submit(scene.address, Task(module=wasm(LOOP)), job="first")
        await until(lambda: scene.daemon.scheduler.running == 1)
        second = await scene.client.submit(scene.address, Task(module=wasm(LOOP)), job="second")
        assert (await scene.client.cancel(scene.address, "second")).state is State.CANCELLED
        with pytest.raises(NotRunError):
            await second.result()
        await first.cancel()
        await first.result()


async def test_a_client_that_leaves_takes_its_jobs_along(start: Start) -> None:
    async with start() as scene:
        member = scene.member(Identity.from_seed(CLIENT.seed()))
        other = Client(member)
        await other.submit(scene.address, Task(module=wasm(LOOP)), job="left")
        await until(lambda: scene.daemon.scheduler.running == 1)
        member.kill()
        await until(lambda: scene.daemon.scheduler.running == 0)
        status = scene.daemon.serving.status(CLIENT.public_key, "left")
        assert isinstance(status.status, Killed)


async def test_a_client_that_reads_nothing_is_stopped_by_the_clock_of_its_job(start: Start) -> None:
    limits = Limits(wall_seconds=1.0, output_bytes=1 << 29)
    async with start() as scene:
        await scene.client.submit(scene.address, Task(module=wasm(FLOOD), limits=limits), job="deaf")
        await until(lambda: scene.daemon.serving.status(CLIENT.public_key, "deaf").ended is not None)
        assert scene.daemon.serving.status(CLIENT.public_key, "deaf").status == LimitHit("wall")


async def test_a_detached_job_is_fetched_later(start: Start) -> None:
    async with start() as scene:
        task = Task(module=wasm(CAT), stdin=b"kept")
        made = await scene.client.submit(scene.address, task, job="later", detached=True)
        assert made.job == "later"
        await scene.client.close()
        result = await scene.client.fetch(scene.address, "later", made.asked)
        assert (result.stdout, result.status) == (b"kept", Exited(0))
        listed = await scene.client.jobs(scene.address)
        assert [(each.job, each.state, each.kept) for each in listed] == [("later", State.DONE, True)]


async def test_jobs_of_others_cannot_be_seen(start: Start) -> None:
    async with start(admission=Admission(anyone=True)) as scene:
        await scene.client.submit(scene.address, Task(module=wasm(CAT)), job="mine", detached=True)
        other = Client(scene.member())
        for ask in (other.status, other.cancel, other.fetch):
            with pytest.raises(RejectedError) as caught:
                await ask(scene.address, "mine")
            assert caught.value.reason is Reason.UNKNOWN_JOB
        assert await other.jobs(scene.address) == ()


async def test_a_full_queue_refuses_and_a_client_has_its_quota(start: Start) -> None:
    async with start(admission=Admission(anyone=True), slots=1, queue=1, client_jobs=1) as scene:
        first = await scene.client.submit(scene.address, Task(module=wasm(LOOP)))
        await until(lambda: scene.daemon.scheduler.running == 1)
        with pytest.raises(RejectedError) as caught:
            await scene.client.submit(scene.address, Task(module=wasm(LOOP)))
        assert caught.value.reason is Reason.QUOTA
        # The one slot holds it, so what comes next stays in the queue.
        await until(lambda: scene.daemon.scheduler.running == 1)
        others = [Client(scene.member()) for _ in range(2)]
        second = await others[0].submit(scene.address, Task(module=wasm(LOOP)))
        await until(lambda: not scene.daemon.scheduler._incomplete)
        with pytest.raises(RejectedError) as caught:
            await others[1].submit(scene.address, Task(module=wasm(LOOP)))
        assert caught.value.reason is Reason.QUEUE_FULL
        for each in (second, first):
            await each.cancel()
        await first.result()


async def test_a_node_that_stops_hands_back_what_waits_and_ends_what_runs(start: Start) -> None:
    async with start(slots=1) as scene:
        limits = Limits(wall_seconds=1.0)
        runs = await scene.client.submit(scene.address, Task(module=wasm(LOOP), limits=limits))
        await until(lambda: scene.daemon.scheduler.running == 1)
        waits = await scene.client.submit(scene.address, Task(module=wasm(LOOP)))
        stopping = asyncio.create_task(scene.daemon.scheduler.stop())
        with pytest.raises(NotRunError) as caught:
            await waits.result()
        assert caught.value.state is State.RETURNED
        with pytest.raises(RejectedError) as refused:
            await scene.client.run(scene.address, Task(module=wasm(CAT)))
        assert refused.value.reason is Reason.STOPPING
        assert (await runs.result()).status == LimitHit("wall")
        await stopping


async def _parts(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 65_536):
        yield b"x" * min(65_536, size - start)


async def test_a_client_leaves_a_job_once_all_of_its_input_has_arrived(start: Start) -> None:
    async with start(slots=1) as scene:
        first = await scene.client.submit(scene.address, Task(module=wasm(LOOP)))
        await until(lambda: scene.daemon.scheduler.running == 1)
        task = Task(module=wasm(CAT))
        whole = scene.client.submit(
            scene.address, task, job="whole", source=_parts(3_000_000), detached=True
        )
        submitted = asyncio.ensure_future(whole)
        await until(lambda: scene.daemon.scheduler.queued == 1)
        await first.cancel()
        made = await submitted
        await scene.client.close()
        result = await scene.client.fetch(scene.address, "whole", made.asked)
        assert result.receipt.stdin.length == len(result.stdout) == 3_000_000


async def test_a_detached_job_that_reads_no_input_lets_its_client_go(start: Start) -> None:
    async with start() as scene:
        task = Task(module=wasm(FLOOD))
        made = await scene.client.submit(scene.address, task, source=_parts(1 << 40), detached=True)
        result = await scene.client.fetch(scene.address, made.job, made.asked)
        assert result.status == LimitHit("output")


@pytest.mark.parametrize("known", [1_000_000, None])
async def test_a_detached_job_whose_client_leaves_too_early_ends_and_says_so(
    start: Start, known: int | None
) -> None:
    """Where the length is known, an early end of the stream is enough."""
    module = wasm(CAT)
    offer = Offer(job="half", module=Task(module=module).content, detached=True, input=known)
    async with start() as scene:
        await scene.client.run(scene.address, Task(module=module))
        member = scene.member(Identity.from_seed(CLIENT.seed()))
        frames = Frames(await (await member.connect(scene.address, 5.0)).open())
        await frames.send(frame(offer), frame(Request()), pack(Kind.STDIN, b"x" * 1000))
        await frames.receive()
        await frames.receive()
        if known is None:
            member.kill()
        else:
            await frames.stream.finish()
        await until(lambda: scene.daemon.serving.status(CLIENT.public_key, "half").ended is not None)
        status = scene.daemon.serving.status(CLIENT.public_key, "half")
        assert isinstance(status.status, Killed)
        assert status.detail == "its input did not arrive whole"
        assert scene.daemon.scheduler.running == 0


async def test_input_beyond_its_limit_is_not_held_and_the_receipt_holds(start: Start) -> None:
    async with start() as scene:
        task = Task(module=wasm(CAT), limits=Limits(stdin_bytes=100_000))
        made = await scene.client.submit(scene.address, task, source=_parts(1 << 40))
        result = await made.result()
        assert (result.status, result.receipt.stdin.length) == (LimitHit("stdin"), 100_000)
        assert len(made._given) <= 100_000 + 65_536


async def test_a_client_cannot_have_a_node_read_out_what_another_has_brought(start: Start) -> None:
    """Receipts publish the hash of an input; who knows it must bring the bytes all the same."""
    other = Identity.ephemeral()
    async with start(admission=Admission([CLIENT.public_key, other.public_key])) as scene:
        secret = Task(module=wasm(COPY), inputs={"in": b"a secret"}, outputs=("out",))
        await scene.client.run(scene.address, secret)
        reader = Client(scene.network.join(other))
        try:
            made = await reader.submit(scene.address, secret)
            assert made.sent_module
            assert (await made.result()).files == {"out": b"a secret"}, "it has brought it, too"
            assert scene.daemon.blobs.has(other.public_key, secret.asked("", "").inputs["in"].sha256)
        finally:
            await reader.close()


async def test_input_that_fails_is_the_callers_error_and_no_result(start: Start) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"a part"
        raise OSError(5, "the disk is broken")

    async with start() as scene:
        made = await scene.client.submit(scene.address, Task(module=wasm(CAT)), source=breaks())
        with pytest.raises(OSError, match="the disk is broken"):
            await made.result()
        await until(lambda: scene.daemon.scheduler.running == 0)
