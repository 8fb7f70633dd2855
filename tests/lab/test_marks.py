import binascii
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import marks


def test_reads_a_mark_behind_a_kernel_time() -> None:
    line = '[    2.041] phase-mark {"step":"fetch","outcome":"refused","t":2.5,"reason":"no"}'
    assert marks.parse(line, 7.0) == marks.Mark("fetch", "refused", 2.5, {"reason": "no"}, 7.0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "phase-mark",
        "phase-mark {}",
        'phase-mark {"step":"a","outcome":"ok"}',
        'phase-mark {"step":"a","outcome":"ok","t":"1"}',
        'phase-mark {"step":"a","outcome":"ok","t":true}',
        'phase-mark {"step":"a","outcome":"ok","t":NaN}',
        'phase-mark {"step":"a","outcome":"ok","t":-1}',
        'phase-mark {"step":["a"],"outcome":"ok","t":1}',
        'phase-mark {"step":"a","outcome":"ok","t":1',
        'phase-mark {"step":"a","outc[    1.0] other words}',
        "phase-mark [1]",
        "phase-mark " + "{" * 2000 + "}",
        'phase-mark {"a":' + "[" * 4000 + "}",
    ],
)
def test_takes_nothing_else_for_one(line: str) -> None:
    assert marks.parse(line, 0.0) is None


@given(st.text(max_size=200))
def test_no_line_breaks_it(text: str) -> None:
    marks.parse(f"a-mark {{{text}}}", 0.0)


_TEXT = st.text(st.characters().filter(str.isprintable), max_size=20)


@given(
    _TEXT,
    st.floats(min_value=0, max_value=1e6),
    st.dictionaries(_TEXT.map("x".__add__), st.integers()),
)
def test_gives_back_what_was_marked(step: str, t: float, facts: dict[str, int]) -> None:
    line = "a-mark " + json.dumps({"step": step, "outcome": "ok", "t": t} | facts)
    assert marks.parse(line, 1.0) == marks.Mark(step, "ok", t, facts, 1.0)


def test_escapes_stand_for_nothing_that_a_terminal_obeys() -> None:
    mark = marks.parse(r'a-mark {"step":"a\u001b[2K","outcome":"ok","t":1,"why":["b\ud800","c\r\nd"]}', 1.0)
    assert mark is not None
    assert mark.step == "a\N{REPLACEMENT CHARACTER}[2K"
    assert mark.facts == {"why": ["b\N{REPLACEMENT CHARACTER}", "c\N{REPLACEMENT CHARACTER}\nd"]}


def with_crc(body: str) -> str:
    return f'a-mark {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'


WHOLE = with_crc('{"step":"job","outcome":"ok","t":41.25,"stdout":"dlroW ,olleH"')


def test_holds_a_mark_to_its_checksum() -> None:
    mark = marks.parse(WHOLE, 1.0)
    assert mark is not None
    assert mark.facts == {"stdout": "dlroW ,olleH"}
    assert mark.crc == WHOLE[-10:-2]


def test_no_single_wrong_byte_passes() -> None:
    """Whatever one byte becomes: no mark, or one that carries no checksum, or the same mark."""
    for position in range(len(WHOLE)):
        for byte in map(chr, range(128)):
            found = marks.parse(WHOLE[:position] + byte + WHOLE[position + 1 :], 1.0)
            assert found is None or not found.crc or found == marks.parse(WHOLE, 1.0), position


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 40))
def test_no_lost_bytes_pass(start: int, count: int) -> None:
    found = marks.parse(WHOLE[:start] + WHOLE[start + count :], 1.0)
    assert found is None or not found.crc or found == marks.parse(WHOLE, 1.0)
