"""How the figures of `bench.dht` are read off what passed."""

import msgspec

from bench._dht_tape import Datagram, Way, way

A, B, C = (("192.0.2.1", 4000), ("192.0.2.2", 4000), ("192.0.2.3", 4000))
ID = bytes(20)


def _asked(number: int, other: tuple[str, int], name: str = "find_value") -> Datagram:
    body = msgspec.msgpack.encode((name, (ID, ID)))
    return Datagram(True, b"\0" + bytes((number,)) * 20 + body, other, float(number))


def _said(number: int, other: tuple[str, int], said: object) -> Datagram:
    return Datagram(False, b"\1" + bytes((number,)) * 20 + msgspec.msgpack.encode(said), other, number + 0.5)


def _good(value: bytes) -> bool:
    return value == b"good"


def test_hops_are_counted_from_who_was_known() -> None:
    """A is known and names B, which names C, which has it: three hops."""
    tape = [
        _asked(1, A),
        _said(1, A, [(ID, *B)]),
        # Not a part of the lookup, but a datagram.
        _asked(9, A, "ping"),
        _said(9, A, ID),
        _asked(2, B),
        _said(2, B, {"value": [b"bad"], "nodes": [(ID, *C), (ID, *A)]}),
        _asked(3, C),
        _said(3, C, {"value": [b"bad", b"good"], "nodes": []}),
        _asked(4, A),
    ]
    assert way(tape, _good) == Way(3, 8, 3.5)
    # The library sends one value.
    assert way([_asked(1, A), _said(1, A, {"value": b"good"})], _good) == Way(1, 2, 1.5)


def test_only_an_answer_to_the_question_counts() -> None:
    value = {"value": [b"good"]}
    assert way([_asked(1, A), _said(1, B, value), _said(2, A, value)], _good) is None
    assert way([_asked(1, A, "find_node"), _said(1, A, value)], _good) is None
    assert way([_asked(1, A), _said(1, A, {"value": [b"bad"]}), _said(1, A, 5)], _good) is None
