"""JSON from outside is decoded in one place, and raises one error."""

import ast
from pathlib import Path

import pytest

import phase
from phase.foreign import MalformedError, read_json

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
