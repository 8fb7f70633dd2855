"""JSON from outside is decoded in one place, and raises one error."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import phase
from phase import foreign
from phase.foreign import MAX_DEPTH, MAX_VALUES, MalformedError, check_alike, read_json

#: The seed reads metadata and its floor by the standard library: it starts faster so, and each of these
#: catches what that raises.
ELSEWHERE = {"trust/wire.py", "trust/floor.py", "foreign.py"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'"\xff"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b"null",
        b'"\\ud800"',
    ],
    ids=lambda data: repr(data[:6]),
)
@pytest.mark.parametrize("kind", [dict[str, str], list[list[int]], int])
def test_whatever_the_bytes_are_one_error_says_so(data: bytes, kind: type) -> None:
    with pytest.raises(MalformedError) as caught:
        read_json(data, kind)
    assert len(str(caught.value)) <= 200


def test_no_other_place_decodes_json() -> None:
    """A new place would have to learn again what decoders raise: use `read_json`."""
    package = Path(phase.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "msgspec.json.decode", "msgspec.json.Decoder", "json.loads", "json.load"
            ):  # fmt: skip
                found.add(path.relative_to(package).as_posix())
    assert found <= ELSEWHERE


_TEXT = st.text(max_size=6) | st.sampled_from(["[" * 70, "{" * 70, ",:" * 40, "\\u", "\ud800", "\udc00x"])
_VALUES = st.recursive(
    st.none() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
)


@given(_VALUES, st.booleans())
def test_what_is_not_counted_could_not_fail_to_be_read_alike(value: object, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    if foreign._plain(data):
        foreign._check_size(value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "levels"),
        (b"[" + b"1," * MAX_VALUES + b"1]", "values"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b'{"\\ud800": 1}', "surrogates"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "the name 'b' twice"),
    ],
)
def test_what_others_may_read_otherwise_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        check_alike(data)
    check_alike(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    check_alike(b'{"a": "[{,:", "b": [1, {"a": "\\ud83d\\ude00"}]}')
