"""Marks: one line, bounded, parseable whatever is put in."""

import binascii
import json

from hypothesis import given
from hypothesis import strategies as st

from phase import marks


def parse(line: str) -> dict[str, object]:
    tag, _, body = line.partition(" ")
    assert tag == "phase-mark"
    parsed: dict[str, object] = json.loads(body)
    text, _, rest = body.rpartition(',"crc":')
    assert rest == f'"{parsed.pop("crc")}"}}'
    assert rest == f'"{binascii.crc32(text.encode()):08x}"}}'
    return parsed


def test_a_mark_carries_step_outcome_time_and_facts() -> None:
    line = marks.line("fetch", "refused", t=1.23456, provider="http://a", bytes=3)
    assert parse(line) == {
        "step": "fetch",
        "outcome": "refused",
        "t": 1.235,
        "provider": "http://a",
        "bytes": 3,
    }


@given(st.dictionaries(st.sampled_from(["reason", "provider", "cmdline", "a", "b"]), st.text(max_size=3000)))
def test_a_mark_is_one_bounded_ascii_line_of_json(facts: dict[str, str]) -> None:
    line = marks.line("trust", t=1.0, **facts)
    assert len(line) <= marks.MAX_BYTES
    assert line.isascii()
    assert "\n" not in line
    assert parse(line)["step"] == "trust"
