"""The buffers between a job's thread and the event loop."""

import os

import pytest

from phase.node.streams import HELD_BYTES, Taps


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
