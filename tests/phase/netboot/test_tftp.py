"""Requests for files, and a file on its way."""

import os
import random
import struct
from collections.abc import Mapping
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase.netboot import tftp
from phase.netboot.tftp import Agreed, Problem, Request, RequestError, Sending


def read(
    name: bytes = b"a", mode: bytes = b"octet", options: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    pairs = b"".join(f"{key}\0{value}\0".encode() for key, value in options.items())
    return b"\0\1" + name + b"\0" + mode + b"\0" + pairs


def ack(number: int) -> bytes:
    return struct.pack("!HH", 4, number & 0xFFFF)


def test_a_request_is_read() -> None:
    assert tftp.parse(read(b"x86_64/boot.efi", options={"BLKSIZE": "1468", "tsize": "0"})) == Request(
        "x86_64/boot.efi", {"blksize": "1468", "tsize": "0"}
    )
    assert tftp.parse(read(mode=b"OcTeT")) == Request("a", {})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\0\2a\0octet\0", Problem.DENIED),
        (b"\0\1a\0netascii\0", Problem.BAD),
        (b"\0\1a\0octet", Problem.BAD),
        (b"\0\1\0octet\0", Problem.BAD),
        (b"\0\1a\0", Problem.BAD),
        (b"\0\1a\0octet\0blksize\0", Problem.BAD),
        (b"\0\1", Problem.BAD),
        (read(b"a" * 600), Problem.BAD),
    ],
)
def test_what_is_no_request_to_read_is_refused(data: bytes, problem: Problem) -> None:
    with pytest.raises(RequestError) as refused:
        tftp.parse(data)
    assert refused.value.problem is problem


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\3\0\1abc", b"\0\4\0\1", b"\0\5\0\1no\0", b"\0\6", b"\xff" * 9]
)
def test_what_is_no_request_is_not_answered(data: bytes) -> None:
    assert tftp.parse(data) is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, {}),
        ({"blksize": "1468", "windowsize": "4"}, {"blksize": 1468, "windowsize": 4}),
        ({"blksize": "65464", "windowsize": "65535"}, {"blksize": 1468, "windowsize": 32}),
        ({"blksize": "8", "windowsize": "0", "timeout": "0"}, {}),
        ({"timeout": "3"}, {"timeout": 3}),
        ({"timeout": "255"}, {}),
        ({"tsize": "0"}, {"tsize": 1000}),
        ({"blksize": "-1", "timeout": "x", "windowsize": "1e3", "tsize": "\u0663"}, {}),
        ({"blksize": "9" * 400}, {}),
        ({"multicast": ""}, {}),
    ],
)
def test_only_what_makes_sense_is_agreed_to(asked: dict[str, str], told: dict[str, int]) -> None:
    agreed = tftp.agree(Request("a", asked), 1000)
    assert agreed.told == told
    assert agreed.block == told.get("blksize", 512)
    assert agreed.window == told.get("windowsize", 1)
    assert agreed.timeout == told.get("timeout", 1.0)


def test_of_many_options_some_are_read() -> None:
    names = {f"o{number}": "1" for number in range(20)}
    request = tftp.parse(read(options=names))
    assert request is not None
    assert len(request.options) == tftp.MAX_OPTIONS


def fetched(content: bytes, agreed: Agreed, *, lost: float = 0.0) -> bytes:
    """As a reader by RFC 7440 does it, who loses such a part of the packets."""
    sending, parts, number, chance = Sending(content, agreed), [], 0, random.Random(1)  # noqa: S311
    packets = sending.due()
    if agreed.told:
        assert packets[0].startswith(b"\0\6")
        assert sending.take(ack(0))
        packets = sending.due()
    for _ in range(200_000):
        assert 1 <= len(packets) <= agreed.window
        for packet in packets:
            code, came = struct.unpack_from("!HH", packet)
            assert code == 3
            if chance.random() >= lost and came == (number + 1) & 0xFFFF:
                number += 1
                parts.append(packet[4:])
        sending.take(ack(number))
        if sending.done:
            return b"".join(parts)
        # Nothing due means that the reader's answer was not heard: after a while all is sent again.
        packets = sending.due()
    raise AssertionError("it does not end")


@given(
    st.integers(0, 5000),
    st.sampled_from([512, 600, 1468]),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_a_file_arrives_whole(length: int, block: int, window: int, lost: float) -> None:
    content = os.urandom(length)
    agreed = Agreed(block, window, 1.0, {"blksize": block})
    assert fetched(content, agreed, lost=lost) == content


def test_without_options_the_first_packet_is_the_first_block() -> None:
    assert Sending(b"abc", Agreed()).due() == [b"\0\3\0\1abc"]
    assert fetched(b"abc" * 1000, Agreed()) == b"abc" * 1000


@pytest.mark.parametrize("length", [0, 512, 1024])
def test_a_last_block_is_short_even_if_it_is_empty(length: int) -> None:
    sending = Sending(bytes(length), Agreed())
    for number in range(1, length // 512 + 1):
        assert sending.take(ack(number))
    assert sending.due() == [struct.pack("!HH", 3, length // 512 + 1)]
    sending.take(ack(length // 512 + 1))
    assert sending.done


def test_numbers_begin_again() -> None:
    content = os.urandom(512 * 65_540 + 3)
    assert fetched(content, Agreed(window=32, told={"windowsize": 32})) == content


def test_an_answer_that_comes_twice_makes_nothing_come_twice() -> None:
    """With one block to a window: the sorcerer's apprentice of RFC 1123, 4.2.3.1."""
    sending = Sending(bytes(2000), Agreed())
    assert sending.take(ack(1))
    assert not sending.take(ack(1))
    assert sending.due()[0][2:4] == b"\0\2"


def test_a_window_is_sent_again_once() -> None:
    sending = Sending(bytes(9000), Agreed(window=4, told={"windowsize": 4}))
    assert sending.take(ack(0))
    assert sending.take(ack(2))
    assert sending.take(ack(2))
    assert not sending.take(ack(2)), "a flood of answers would make a flood of windows"
    assert [packet[3] for packet in sending.due()] == [3, 4, 5, 6]
    assert sending.take(ack(6))
    assert sending.take(ack(6))


@pytest.mark.parametrize("number", [6, 7, 0x8000, 0xFFFF])
def test_a_number_that_was_not_sent_changes_nothing(number: int) -> None:
    sending = Sending(bytes(9000), Agreed(window=4, told={"windowsize": 4}))
    sending.take(ack(0))
    assert not sending.take(ack(number))
    assert [packet[3] for packet in sending.due()] == [1, 2, 3, 4]


def test_an_answer_before_the_options_were_taken_changes_nothing() -> None:
    sending = Sending(bytes(9000), Agreed(told={"tsize": 9000}))
    assert not sending.take(ack(1))
    assert sending.due() == [b"\0\6tsize\x009000\0"]


def test_a_reader_may_give_up() -> None:
    sending = Sending(bytes(9000), Agreed())
    assert not sending.take(b"\0\5\0\0User aborted\0")
    assert sending.ended == "User aborted"
    assert not sending.done


@given(st.lists(st.binary(max_size=12), max_size=30), st.integers(1, 32))
def test_any_answers_are_taken(packets: list[bytes], window: int) -> None:
    sending = Sending(bytes(9000), Agreed(window=window, told={"windowsize": window}))
    for packet in packets:
        sending.take(packet)
        assert len(sending.due()) <= window


@given(st.binary(max_size=700))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    request = None
    try:
        request = tftp.parse(data)
    except RequestError as refused:
        text = refused.text
    else:
        text = ""
    assert len(text) < 60
    assert request is None or tftp.agree(request, 5).window <= tftp.MAX_WINDOW
