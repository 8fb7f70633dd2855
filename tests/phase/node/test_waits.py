"""A node whose disk is slow, or that has no descriptors left."""

import asyncio
import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from phase.client import RejectedError, Task
from phase.node.blobs import Blobs
from phase.node.disk import Disk
from phase.node.errors import StateError
from phase.node.journal import Journal
from phase.node.kept import Kept
from phase.peer.messages import Reason, State
from tests.phase.node.conftest import CAT, Start, until, wasm
from tests.phase.node.gate import http

TASK = Task(module=wasm(CAT), stdin=b"x")


class Slow:
    """Stands in for a method that waits for the disk, until the event loop lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        self.begun, self.go, self._call = threading.Event(), threading.Event(), getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *given, **named: self(*given, **named))

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.begun.set()
        assert self.go.wait(10), "the event loop waits for the disk"
        return self._call(*given, **named)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Kept, "begin"), (Kept, "finish"), (Kept, "receipt"), (Blobs, "put"), (Journal, "record")],
)
async def test_the_event_loop_goes_on_while_the_disk_is_slow(
    start: Start, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:
    async with start() as scene:
        slow = Slow(monkeypatch, kind, name)

        async def run() -> bytes:
            await scene.client.submit(scene.address, TASK, job="a", detached=True)
            return (await scene.client.fetch(scene.address, "a")).stdout

        running = asyncio.create_task(run())
        await until(slow.begun.is_set)
        assert (await scene.client.describe(scene.address)).slots == 2
        slow.go.set()
        assert await running == b"x"


async def test_a_job_that_is_refused_after_its_line_was_written_is_not_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: Journal) -> None:
        raise StateError("the journal cannot be written: Input/output error")

    async with start() as scene:
        monkeypatch.setattr(Journal, "sync", full)
        with pytest.raises(RejectedError):
            await scene.client.submit(scene.address, TASK, job="a", detached=True)
        assert list(scene.daemon.scheduler.ledger) == []
    async with start() as scene:
        said = await scene.client.status(scene.address, "a")
        assert (said.state, said.detail) == (State.CANCELLED, "it was not taken")


def _none_left(*_: Any, **__: Any) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("where", [(os, "eventfd"), (Kept, "begin")], ids=["descriptors", "results"])
async def test_a_node_without_descriptors_refuses_and_takes_the_id_later(
    start: Start, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    async with start() as scene:
        with monkeypatch.context() as patched:
            patched.setattr(*where, _none_left)
            with pytest.raises(RejectedError, match="Too many open files") as caught:
                await scene.client.submit(scene.address, TASK, job="a", detached=True)
            assert caught.value.reason is Reason.INSUFFICIENT_RESOURCES
        scheduler = scene.daemon.scheduler
        assert (list(scheduler.ledger), scheduler.ledger._of, scheduler.queued) == ([], {}, 0)
        await scene.client.submit(scene.address, TASK, job="a", detached=True)
        assert (await scene.client.fetch(scene.address, "a")).stdout == b"x"
        assert not scene.daemon.tasks.failures


async def test_what_was_made_for_a_caller_that_left_is_freed() -> None:
    disk, begun, go = Disk(), threading.Event(), threading.Event()
    freed: list[str] = []

    def make(what: str) -> str:
        begun.set()
        go.wait(10)
        return what

    making = asyncio.create_task(disk.made(make, freed.append, "a place"))
    await until(begun.is_set)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    go.set()
    await until(lambda: freed == ["a place"])
    disk.close()


def test_results_with_many_files_are_whole(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "k")
    spool = kept.begin("1" * 64, "a")
    spool.close()
    left = {f"file {number}": b"%d" % number for number in range(300)}
    kept.finish("1" * 64, "a", b"receipt", left)

    def content(opened: int | None) -> bytes:
        assert opened is not None
        with open(opened, "rb") as file:
            return file.read()

    for name, data in left.items():
        assert content(kept.file("1" * 64, "a", name)) == data
    assert kept.receipt("1" * 64, "a") == b"receipt"


async def test_a_node_without_room_says_so_by_http(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by QUIC: it is not a fault, and the client may come again."""
    async with start() as scene, http(scene) as client:
        target = f"/v1/blobs/{hashlib.sha256(b'blob').hexdigest()}"
        with monkeypatch.context() as patched:
            patched.setattr(Blobs, "put", _none_left)
            full = await client.call("PUT", target, b"blob")
        assert (full.status, full.json["reason"]) == (503, "insufficient resources")
        assert "Too many open files" in full.json["detail"]
        assert (await client.call("PUT", target, b"blob")).status == 201
