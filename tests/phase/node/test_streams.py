"""The buffers between a job's thread and the event loop."""

import asyncio
import os
from pathlib import Path

import pytest

from phase.jobs.flow import Streams
from phase.jobs.runner import Job, execute
from phase.node.fair import FairQueue
from phase.node.streams import HELD_BYTES, TOLD_BYTES, Taps


@pytest.mark.parametrize("leaves", [True, False])
async def test_output_of_a_job_that_has_ended_touches_no_file_of_others(leaves: bool) -> None:
    """Its descriptor is closed then, and the number may be a pipe, on which a read would wait for ever."""
    taps = Taps()
    room = taps.fileno()
    assert taps.add("stdout", memoryview(bytes(HELD_BYTES))) == HELD_BYTES
    taps.close()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.dup2(reader, room)
    os.write(writer, bytes(8))
    if leaves:
        taps.leave()
    else:
        assert await taps.take() == ("stdout", bytes(HELD_BYTES))
    assert await taps.take() is None
    assert os.read(room, 16) == bytes(8)
    for each in {room, reader, writer}:
        os.close(each)


class _Counting(Taps):
    """Counts how often the event loop was told."""

    times = 0

    def tell(self) -> None:
        self.times += 1
        super().tell()


async def test_the_last_output_of_a_job_is_told_with_its_end() -> None:
    taps = _Counting()
    job = Job(Path("fixtures/hello.wat").read_bytes(), stdin=b"ab")
    streams = Streams(stdout=taps.stdout, stderr=taps.stderr, told=taps)
    await asyncio.to_thread(execute, job, None, streams)
    assert taps.untold or taps.times  # a busy machine may take longer for the end
    taps.end()
    assert await taps.take() == ("stdout", b"ba")
    assert (taps.ready, await taps.take()) == (True, None)
    taps.close()


async def test_output_is_told_while_the_job_goes_on() -> None:
    """Of a module that prints and then never ends: its client hears of what it printed."""
    taps = Taps()
    stop, stops = os.pipe()
    printing = """(module
      (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 16) "ab")
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 2))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (loop $l (br $l))))"""
    streams = Streams(stdout=taps.stdout, stderr=taps.stderr, stop=stop, told=taps)
    running = asyncio.create_task(asyncio.to_thread(execute, Job(printing.encode()), None, streams))
    assert await asyncio.wait_for(taps.take(), 60) == ("stdout", b"ab")
    os.write(stops, b"x")
    await running
    taps.close()
    for each in (stop, stops):
        os.close(each)


async def test_much_output_is_told_at_once() -> None:
    taps = _Counting()
    taps.add("stdout", memoryview(bytes(TOLD_BYTES - 1)))
    assert (taps.untold, taps.times) == (True, 0)
    taps.add("stdout", memoryview(b"x"))
    assert (taps.untold, taps.times) == (False, 1)
    taps.close()


async def test_an_item_wakes_one_who_waits_for_it() -> None:
    queue: FairQueue[int] = FairQueue()
    woken: list[int] = []

    async def take() -> None:
        woken.append(await queue.get())

    waiting = [asyncio.create_task(take()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.put("a", 1)
    queue.put("a", 2)
    assert queue.remove("a", 1)
    queue.put("b", 3)
    for _ in range(4):
        await asyncio.sleep(0)
    assert sorted(woken) == [2, 3]
    waiting[2].cancel()
    await asyncio.wait(waiting)
    queue.put("c", 4)
    assert await asyncio.wait_for(queue.get(), 1) == 4
