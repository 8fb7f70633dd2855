"""Frames between peers, however the bytes of them arrive."""

import asyncio
from typing import cast

import pytest

from phase.peer.framing import (
    CHUNK,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_RECEIPT,
    Frames,
    Kind,
    ProtocolError,
    check_head,
    file_frame,
    file_frames,
    file_part,
    pack,
)
from phase.peer.transport import Stream


class Parts:
    """A stream that gives bytes in parts; then it has ended, or is silent."""

    def __init__(self, *parts: bytes, silent: bool = False) -> None:
        self._parts = list(parts)
        self._silent = silent
        self.asked: list[int] = []
        self.sent: list[bytes] = []

    async def receive(self, most: int) -> bytes:
        self.asked.append(most)
        if not self._parts and self._silent:
            await asyncio.Event().wait()
        return self._parts.pop(0) if self._parts else b""

    async def send(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.sent.append(data)


def frames(*parts: bytes, silent: bool = False) -> Frames:
    return Frames(cast(Stream, Parts(*parts, silent=silent)))


@pytest.mark.parametrize("size", [1, 2, 5, 7, 1000])
async def test_frames_arrive_however_they_are_cut(size: int) -> None:
    data = pack(Kind.STDOUT, b"one") + pack(Kind.STDIN, b"") + pack(Kind.MESSAGE, b"{}" * 9)
    got = frames(*(data[start : start + size] for start in range(0, len(data), size)))
    assert await got.receive() == (Kind.STDOUT, b"one")
    assert await got.receive() == (Kind.STDIN, b"")
    assert await got.receive() == (Kind.MESSAGE, b"{}" * 9)
    assert await got.receive() is None
    assert await got.receive() is None


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 7])
async def test_an_end_within_a_frame_is_no_end(cut: int) -> None:
    with pytest.raises(ProtocolError, match="ended within a frame"):
        await frames(pack(Kind.STDOUT, b"one")[:cut]).receive()


async def test_a_frame_that_is_too_long_is_refused_before_more_is_read() -> None:
    stream = Parts(pack(Kind.STDOUT, b"x" * (CHUNK + 1))[:5], b"x" * 100)
    with pytest.raises(ProtocolError, match=f"stdout has {CHUNK + 1} bytes; the limit is {CHUNK}"):
        await Frames(cast(Stream, stream)).receive()
    assert stream.asked == [CHUNK]


async def test_a_reader_may_want_shorter_messages() -> None:
    data = pack(Kind.MESSAGE, b"x" * 11)
    assert await frames(data).receive(message=11) == (Kind.MESSAGE, b"x" * 11)
    with pytest.raises(ProtocolError, match="message has 11 bytes; the limit is 10"):
        await frames(data).receive(message=10)
    # What is no message has the limit of its own kind.
    assert await frames(pack(Kind.STDOUT, b"x" * 11)).receive(message=10) == (Kind.STDOUT, b"x" * 11)


async def test_a_frame_has_its_time() -> None:
    with pytest.raises(ProtocolError, match=r"no whole frame within 0\.05 s"):
        await frames(pack(Kind.STDOUT, b"one")[:6], silent=True).receive(seconds=0.05)


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (Kind.MESSAGE, MAX_MESSAGE),
        (Kind.MODULE, CHUNK),
        (Kind.STDIN, CHUNK),
        (Kind.STDOUT, CHUNK),
        (Kind.STDERR, CHUNK),
        (Kind.RECEIPT, MAX_RECEIPT),
        (Kind.FILE, 1 + MAX_NAME + CHUNK),
    ],
)
def test_each_kind_has_its_limit(kind: Kind, most: int) -> None:
    assert check_head(int(kind), most) is kind
    with pytest.raises(ProtocolError, match=f"{kind.name.lower()} has {most + 1} bytes"):
        check_head(int(kind), most + 1)


async def test_what_was_put_back_goes_first_and_with_the_rest() -> None:
    stream = Parts()
    out = Frames(cast(Stream, stream))
    out.later(b"one", b"two")
    assert (out.unsent, stream.sent) == (6, [])
    await out.send(b"three", b"four")
    await out.send()
    assert (out.unsent, stream.sent) == (0, [b"onetwothreefour"])


async def test_two_that_send_at_once_do_not_mix() -> None:
    stream = Parts()
    out = Frames(cast(Stream, stream))
    await asyncio.gather(*(out.send(bytes([number]) * 3) for number in range(9)))
    assert stream.sent == [bytes([number]) * 3 for number in range(9)]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
async def test_a_file_arrives_whole_with_its_name(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    packed = list(file_frames("näme", data))
    assert len(packed) == max(1, -(-size // CHUNK))
    got = frames(*packed)
    parts = [await got.receive() for _ in packed]
    read = [file_part(each.data) for each in parts if each is not None and each.kind is Kind.FILE]
    assert {name for name, _ in read} == {"näme"}
    assert b"".join(part for _, part in read) == data


async def test_the_longest_name_has_room() -> None:
    name = "n" * MAX_NAME
    got = await frames(file_frame(name, b"x" * CHUNK)).receive()
    assert got is not None
    assert file_part(got.data) == (name, b"x" * CHUNK)


@pytest.mark.parametrize("data", [b"", b"\2\xc3\x28"])
def test_a_part_of_a_file_without_a_name(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="has no name"):
        file_part(data)
