import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase.jobs import wire


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_what_is_packed_comes_out(fields: list[bytes]) -> None:
    assert wire.unpack(wire.pack(*fields)) == fields


@given(st.binary(max_size=64))
def test_bytes_from_a_taken_over_worker_are_read_or_refused(data: bytes) -> None:
    try:
        fields = wire.unpack(data)
    except ValueError:
        return
    assert wire.pack(*fields) == data


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\x01", "inside a length"),
        (b"\x01\0\0\0\x05\0\0\0abc", "over the frame's end"),
        (b"\0\0\0\0x", "1 bytes after"),
        (b"\xff\xff\xff\xff", "the limit is"),
    ],
)
def test_broken_frames_say_what_is_broken(frame: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wire.unpack(frame)


def test_too_many_fields_are_not_packed() -> None:
    with pytest.raises(ValueError, match="the limit is 4096"):
        wire.pack(*[b""] * 4097)


def test_a_pipe_is_written_and_read_to_its_end() -> None:
    reader, writer = os.pipe()
    wire.write_all(writer, b"x" * 5000)
    os.close(writer)
    assert wire.read_all(reader) == b"x" * 5000
    os.close(reader)
