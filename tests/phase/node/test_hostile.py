"""What clients do that a node must bear: each is refused by name and counted, and honest jobs go on."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from phase.client import Client, RejectedError, Task
from phase.client.submission import refusal
from phase.identity import Identity
from phase.jobs.limits import Limits
from phase.node import arriving, serving
from phase.node.admission import read_keys
from phase.node.errors import NodeError
from phase.peer import framing, messages
from phase.peer.allowed import Allowed
from phase.peer.errors import PeerError, RefusedError
from phase.peer.framing import Frames, Kind, pack
from phase.peer.iroh import IrohTransport
from phase.peer.iroh import Options as Peering
from phase.peer.messages import Accepted, Cancel, Offer, Reason, Rejected, Request, frame
from phase.peer.transport import Address
from tests.phase.node.conftest import CAT, CLIENT, LOOP, Scene, Start, until, wasm
from tests.phase.node.service import begin

_OFFER = Offer(job="bad", module=Task(module=b"wasm").content)


async def _open(scene: Scene) -> Frames:
    """A stream of an allowed client, to be used badly."""
    member = scene.member(Identity.from_seed(CLIENT.seed()))
    connection = await member.connect(scene.address, 5.0)
    return Frames(await connection.open())


async def _rejected(frames: Frames) -> Rejected:
    found = await frames.receive(seconds=20.0)
    assert found is not None
    return messages.read(found.data, Rejected)


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"\xff" * 5, "there is no frame of the kind 255"),
        (bytes([Kind.MESSAGE]) + (1 << 30).to_bytes(4, "big"), "a frame of message has 1073741824 bytes"),
        (pack(Kind.MESSAGE, b" " * (64 << 10) + b"{}"), "the limit is 65536"),
        (pack(Kind.MESSAGE, b"{"), "not a message that is expected here"),
        (pack(Kind.MESSAGE, b"[" * 10_000), "not a message that is expected here"),
        (pack(Kind.STDIN, b"x"), "a stream begins with a message"),
        (frame(Cancel()), "a cancel of no job"),
        (frame(_OFFER) + pack(Kind.STDIN, b"x"), "an offer is followed by its request"),
        (frame(_OFFER) + frame(Request()) + pack(Kind.MODULE, b"wasn"), "does not have the hash"),
        (frame(_OFFER) + frame(Request()) + pack(Kind.MODULE, b"wasmx"), "more than its 4 bytes"),
        (frame(_OFFER) + frame(Request()) + pack(Kind.MODULE, b""), "ended after 0 of 4 bytes"),
    ],
)
async def test_what_is_no_message_is_refused_and_leaves_nothing(
    start: Start, sent: bytes, detail: str
) -> None:
    async with start() as scene:
        frames = await _open(scene)
        await frames.stream.send(sent)
        found = await frames.receive(seconds=20.0)
        assert found is not None
        said: Any = messages.read(found.data, Accepted | Rejected)
        if isinstance(said, Accepted):
            said = await _rejected(frames)
        assert (said.reason, detail in said.detail) == (Reason.INVALID_REQUEST, True), said.detail
        assert scene.daemon.serving.errors["protocol"] == 1
        assert scene.daemon.scheduler.queued == 0
        assert (await scene.client.run(scene.address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"


async def test_slow_senders_are_cut_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "SECONDS", 0.2)
    monkeypatch.setattr(framing.Frames.receive, "__kwdefaults__", {"seconds": 0.2, "message": 1 << 20})
    monkeypatch.setattr(arriving, "SECONDS", 0.2)
    async with start() as scene:
        half, slow = await _open(scene), await _open(scene)
        await half.stream.send(frame(_OFFER)[:-1])
        assert "no whole frame within 0.2 s" in (await _rejected(half)).detail
        await slow.stream.send(frame(_OFFER) + frame(Request()))
        assert (await slow.receive(seconds=20.0)) is not None
        assert "module came too slowly: 0 of 4 bytes" in (await _rejected(slow)).detail
        assert scene.daemon.scheduler.queued == 0


async def test_an_offer_that_is_sent_again_does_not_run_again(start: Start) -> None:
    module = wasm(CAT)
    offer = Offer(job="once", module=Task(module=module).content)
    async with start() as scene:
        await scene.client.run(scene.address, Task(module=module))
        for _ in range(2):
            frames = await _open(scene)
            await frames.stream.send(frame(offer) + frame(Request()))
            found = await frames.receive(seconds=20.0)
            assert found is not None
            said = messages.read(found.data, Accepted | Rejected)
            await until(lambda: scene.daemon.scheduler.ended["done"] == 2)
        assert isinstance(said, Rejected)
        assert said.reason is Reason.DUPLICATE


async def test_a_client_has_so_many_streams_and_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STREAMS", 2)
    async with start() as scene:
        runs = [await scene.client.submit(scene.address, Task(module=wasm(LOOP))) for _ in range(2)]
        with pytest.raises(RejectedError) as caught:
            await scene.client.submit(scene.address, Task(module=wasm(LOOP)))
        assert caught.value.reason is Reason.QUOTA
        for each in runs:
            await each.cancel()


async def test_a_client_that_reads_nothing_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job has ended; what is left of the result does not stay for ever."""
    monkeypatch.setattr(serving, "SEND_SECONDS", 0.3)
    async with start() as scene:
        task = Task(module=wasm(CAT), stdin=b"x" * (1 << 20), limits=Limits(wall_seconds=20.0))
        await scene.client.submit(scene.address, task)
        await until(lambda: scene.daemon.serving.errors["protocol"] == 1)
        await until(lambda: scene.daemon.scheduler.running == 0)


def test_a_file_of_keys_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    one, two = "a" * 64, "B" * 64
    path.write_text(f"# clients\n{one} the first\n\n  {two}\n")
    assert read_keys([str(path), "C" * 64]) == {one, two.lower(), "c" * 64}
    allowed = Allowed([str(path)])
    assert [allowed(key) for key in (one, two.lower(), "c" * 64)] == [True, True, False]
    path.write_text(f"{one}\nnot-a-key\n")
    with pytest.raises(NodeError, match=f"line 2 of {path} is not a key: 'not-a-key'"):
        read_keys([str(path)])
    with pytest.raises(NodeError, match="is not a key of 64 hex digits, and not a file of keys: abc"):
        read_keys(["abc"])


async def test_strangers_are_refused_and_counted_while_jobs_go_on(tmp_path: Path) -> None:
    """Real connections to a real node; each stranger has a key of its own."""
    identity = Identity.load_or_create(tmp_path / "client/identity.json")
    node = begin(tmp_path, "--allow", identity.public_key)
    address = Address.parse(node.address)
    try:
        async with Client.open(identity) as client:
            strangers = asyncio.gather(*(_stranger(address) for _ in range(40)))
            for _ in range(20):
                assert (await client.run(address, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"
            assert set(await strangers) == {Reason.NOT_AUTHORISED}
        host = address.hosts[0]
        status = json.loads(await asyncio.to_thread(_get, f"http://{host}/status"))
        assert status["strangers"] == {"not authorised: this node does not allow this key": 40}
        assert status["ended"] == {"done": 20}
    finally:
        node.end()


async def _stranger(address: Address) -> Reason:
    """What a stranger is told."""
    transport = await IrohTransport.start(Identity.ephemeral(), Peering(listen=("127.0.0.1:0",)))
    try:
        connection = await transport.connect(address, 20.0)
        stream = await connection.open()
        await stream.send(frame(_OFFER))
        await stream.receive(1)
    except RefusedError as error:
        told = refusal(error)
        assert told is not None
        return told.reason
    except PeerError:
        return Reason.INVALID_REQUEST
    finally:
        await transport.close()
    return Reason.UNKNOWN_JOB


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())
