"""`phase node` from its start to a signal, in this process, over real QUIC and HTTP."""

import asyncio
import hashlib
import os
import signal
from collections import OrderedDict
from pathlib import Path
from urllib.request import urlopen

import pytest

from phase.client import Client, RejectedError, Task
from phase.identity import Identity
from phase.node import IDENTITY, arriving, scheduler
from phase.node.admission import Admission
from phase.node.blobs import Blobs
from phase.node.capacity import Capacity
from phase.node.daemon import Options, run
from phase.peer.address import Address
from phase.peer.framing import file_frame
from phase.peer.messages import Accepted, Offer, Reason, Rejected, Request, frame
from tests.phase.node.conftest import CAT, CLIENT, Start, said_by, streams, wasm


async def test_a_node_serves_from_ready_to_a_signal_and_keeps_its_identity(tmp_path: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    options = Options(
        state=tmp_path / "state",
        listen=("127.0.0.1:0",),
        mdns=False,
        admission=Admission([CLIENT.public_key]),
        capacity=Capacity(slots=1),
    )
    places = []
    for _ in range(2):
        node = asyncio.create_task(
            run(options, ready=told.put_nowait, stopping=lambda: told.put_nowait("stops"))
        )
        async with asyncio.timeout(30):
            place = Address.parse(await told.get())
            places.append(place.key)
            async with Client.open(CLIENT) as client:
                assert (await client.run(place, Task(module=wasm(CAT), stdin=b"x"))).stdout == b"x"
            async with Client.open(Identity.ephemeral()) as stranger:
                with pytest.raises(RejectedError) as caught:
                    await stranger.run(place, Task(module=wasm(CAT)))
            assert caught.value.reason is Reason.NOT_AUTHORISED
            # HTTP has the port of QUIC.
            health = await asyncio.to_thread(urlopen, f"http://{place.hosts[0]}/health")
            with health:
                assert health.read() == b"ok\n"
            os.kill(os.getpid(), signal.SIGTERM)
            assert await told.get() == "stops"
            await node
    assert places == [Identity.load_or_create(tmp_path / "state" / IDENTITY).public_key] * 2
    assert (tmp_path / "state/node/compiled").is_dir()
    assert (tmp_path / "state/node/journal").is_file()


def test_a_blob_that_is_brought_again_counts_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    data = b"x" * 5000
    blobs.put("c" * 64, hashlib.sha256(data).hexdigest(), data)
    held = blobs._held
    assert held >= len(data)
    # As two threads do that have both seen that it is not here yet.
    sizes = blobs._sizes
    (name,) = sizes

    class Seen(OrderedDict[str, int]):
        """Has it only once the file is there."""

        def __contains__(self, key: object) -> bool:
            return False

    blobs._sizes = Seen(sizes)
    blobs.put("c" * 64, hashlib.sha256(data).hexdigest(), data)
    assert (blobs._held, blobs._sizes[name]) == (held, sizes[name])


async def test_as_many_offers_as_may_wait_for_their_modules_and_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MAX_INCOMPLETE", 2)
    async with start() as scene:
        for number, frames in enumerate(await streams(scene, 3)):
            offer = Offer(job=f"{number}", module=Task(module=b"wasm").content)
            await frames.stream.send(frame(offer) + frame(Request()))
            said = await said_by(frames)
            assert isinstance(said, Rejected if number == 2 else Accepted)


async def test_a_file_that_stops_on_its_way_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "SILENT_SECONDS", 0.2)
    content = Task(module=b"two parts").content

    async with start() as scene:
        (frames,) = await streams(scene, 1)
        module = wasm(CAT)
        await scene.client.run(scene.address, Task(module=module))
        offer = Offer(job="half", module=Task(module=module).content, inputs={"in": content})
        await frames.stream.send(frame(offer) + frame(Request()))
        assert isinstance(await said_by(frames), Accepted)
        await frames.stream.send(file_frame("in", b"two"))
        said = await said_by(frames)
        assert isinstance(said, Rejected)
        assert "no whole frame within 0.2 s" in said.detail
