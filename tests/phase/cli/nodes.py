"""Nodes in a thread of the test's own process, over real QUIC on loopback, with real workers."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec

from phase.identity import Identity
from phase.jobs.flow import Streams
from phase.jobs.job import Execution, Job
from phase.node.admission import Admission
from phase.node.capacity import Capacity
from phase.node.daemon import Daemon
from phase.node.scheduler import Runner
from phase.node.workers import Workers
from phase.peer.iroh import IrohTransport, Options
from tests.phase.node.conftest import wasm

#: Kinds of nodes: one that does what it is asked, one that lies about a job, one that allows no client.
HONEST, LIAR, CLOSED = "honest", "liar", "closed"
#: Prints `a lie`, and reads nothing.
LIE = """(memory (export "memory") 1) (data (i32.const 64) "a lie")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 5))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""


class Liar:
    """Runs another module than the one that it is given."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, job: Job, streams: Streams | None = None) -> Execution:
        """As a runner does."""
        found = self._runner.run(msgspec.structs.replace(job, module=wasm(LIE)), streams)
        return msgspec.structs.replace(found, module_sha256=hashlib.sha256(job.module).hexdigest())


@contextmanager
def running(directory: Path, client: str, kinds: Sequence[str]) -> Iterator[list[str]]:
    """Nodes, each with one slot; their addresses.

    Args:
        directory: for what they keep.
        client: the key that all but CLOSED allow.
        kinds: of each.
    """
    addresses: Future[list[str]] = Future()
    loop, ended = asyncio.new_event_loop(), asyncio.Event()

    async def serve(workers: Workers) -> None:
        found = []
        async with AsyncExitStack() as stack:
            for number, kind in enumerate(kinds):
                identity = Identity.ephemeral()
                admission = Admission([] if kind == CLOSED else [client])
                node = Daemon(
                    identity,
                    directory / str(number),
                    capacity=Capacity(slots=1),
                    admission=admission,
                    runner=Liar(workers) if kind == LIAR else workers,
                )
                peering = Options(listen=("127.0.0.1:0",), admit=admission.refusal)
                transport = await IrohTransport.start(identity, peering)
                stack.push_async_callback(transport.close)
                await stack.enter_async_context(node)
                node.listen(transport)
                found.append(str(transport.address()))
            addresses.set_result(found)
            await ended.wait()

    def work(workers: Workers) -> None:
        try:
            loop.run_until_complete(serve(workers))
        except BaseException as error:
            if addresses.done():
                raise
            addresses.set_exception(error)

    # Its processes are forked before there are threads of the transport.
    with Workers(2) as workers:
        thread = threading.Thread(target=work, args=(workers,))
        thread.start()
        try:
            yield addresses.result(60)
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()
