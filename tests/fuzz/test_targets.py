"""Property tests: bytes of any kind, and good bytes with some of them changed, never trip a parser."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phase.peer.framing import Kind
from phase.peer.messages import schemas
from tests.fuzz.targets import cases

#: What JSON and HTTP are made of, which random bytes rarely hit.
TOKENS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\u0000", b"\\ud800", b"null", b"true", b"-1", b"1e9",
    b"99999999999999999999", b"\r\n", b"\0", b"=", b"\xff", b"\xc3\xa9", b" ", b"0", b"phase.",
    b'"signed"', b'"keys"', b'"roles"', b'"version"', b'"signatures"', b'"_type"', b"Content-Length: ",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with a few spans replaced, removed or doubled."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8), st.just(data[start:end] * 2)))
        data = data[:start] + piece + data[end:]
    return data


def test_each_message_and_each_kind_of_frame_between_client_and_node_is_a_seed() -> None:
    texts = [seed for name in ("job-question", "job-request", "job-answer") for seed in cases()[name].seeds]
    kinds = {json.loads(text)["type"] for text in texts}
    assert {f"{kind}-v1.json" for kind in kinds} == set(schemas())
    sent = b"".join(cases()["job-frames"].seeds)
    found = set()
    while sent:
        found.add(sent[0])
        sent = sent[5 + int.from_bytes(sent[1:5], "big") :]
    assert found == set(Kind)


@pytest.mark.parametrize("name", sorted(cases()))
def test_seeds_are_taken(name: str) -> None:
    for seed in cases()[name].seeds:
        cases()[name].run(seed)


@pytest.mark.parametrize("name", sorted(cases()))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_bytes_trip_it(name: str, data: Any) -> None:
    case = cases()[name]
    case.run(data.draw(st.one_of(st.binary(max_size=300), mutated(case.seeds))))
