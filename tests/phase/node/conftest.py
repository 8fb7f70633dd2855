"""A node with real workers, and clients of it over transports in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from wasmtime import wat2wasm

from phase.client import Client
from phase.identity import Identity
from phase.node.admission import Admission
from phase.node.capacity import Capacity
from phase.node.daemon import Daemon
from phase.node.scheduler import Runner
from phase.node.workers import Workers
from phase.peer import messages
from phase.peer.framing import Frames
from phase.peer.memory import MemoryTransport, Network
from phase.peer.messages import Accepted, Rejected
from phase.peer.transport import Address

NODE = Identity.from_seed(b"\1" * 32)
CLIENT = Identity.from_seed(b"\2" * 32)
_IMPORTS = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  {})"""
#: Copies its input to its output, until there is no more.
CAT = """(memory (export "memory") 4)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 9))))
      (if (i32.eqz (i32.load (i32.const 8))) (then return))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12))
        (then (call $proc_exit (i32.const 8))))
      (br $more)))"""
#: Copies 64 KiB of /input/in to /output/out.
COPY = """(import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 2) (data (i32.const 100) "in") (data (i32.const 110) "out")
  (func (export "_start")
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 2) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)) (then (call $proc_exit (i32.const 7))))
    (if (call $path_open (i32.const 4) (i32.const 0) (i32.const 110) (i32.const 3) (i32.const 1)
          (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 20)) (then (call $proc_exit (i32.const 8))))
    (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 65536))
    (if (call $fd_read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 9))))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (if (call $fd_write (i32.load (i32.const 20)) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 10)))))"""
#: Computes for ever.
LOOP = """(memory (export "memory") 1) (func (export "_start") (loop $l (br $l)))"""
#: Prints 64 KiB at a time, for ever, whatever becomes of it.
FLOOD = """(memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65536))
    (loop $l (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $l)))"""


def wasm(body: str) -> bytes:
    """A module with these parts, and the imports of WASI that they need."""
    return bytes(wat2wasm(_IMPORTS.format(body)))


class Scene(NamedTuple):
    """A node, the network it is in, and a client that it allows."""

    daemon: Daemon
    network: Network
    client: Client
    address: Address

    def member(self, identity: Identity | None = None) -> MemoryTransport:
        """Another one in the network."""
        return self.network.join(identity)


Start = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a node in a directory that stays the same for a test."""

    @asynccontextmanager
    async def scene(
        *,
        admission: Admission | None = None,
        runner: Runner | None = None,
        directory: Path = tmp_path / "node",
        **capacity: Any,
    ) -> AsyncIterator[Scene]:
        network = Network()
        transport = network.join(NODE)
        allowed = admission or Admission([CLIENT.public_key])
        limits = Capacity(**({"slots": 2} | capacity))
        with Workers(limits.slots) as workers:
            daemon = Daemon(NODE, directory, capacity=limits, admission=allowed, runner=runner or workers)
            async with daemon:
                daemon.listen(transport)
                client = Client(network.join(CLIENT))
                yield Scene(daemon, network, client, Address(NODE.public_key))
                await client.close()
            await transport.close()

    return scene


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def streams(scene: Scene, count: int) -> list[Frames]:
    """Streams of a connection to the node that no `Client` keeps."""
    member = scene.member(Identity.from_seed(CLIENT.seed()))
    connection = await member.connect(scene.address, 5.0)
    return [Frames(await connection.open()) for _ in range(count)]


async def said_by(frames: Frames) -> Accepted | Rejected:
    """What the node answers to an offer."""
    found = await frames.receive(seconds=20.0)
    assert found is not None
    return messages.read(found.data, Accepted | Rejected)
