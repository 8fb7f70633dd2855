"""Hostile bytes become a FormatError, whatever they are."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from phase.trust import FormatError, SizeError, wire

VALID: dict[str, Any] = {
    "signatures": [],
    "signed": {
        "_type": "timestamp",
        "expires": "2030-01-01T00:00:00Z",
        "meta": {"snapshot.json": {"version": 1}},
        "spec_version": "1.0.34",
        "version": 1,
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes) -> Timestamp:
    return wire.read(data, Timestamp, name="t", max_bytes=1_000_000)[0]


def test_metadata_is_read() -> None:
    assert read(json.dumps(VALID).encode()).version == 1


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)


@given(JSON, st.sampled_from([Root, Timestamp, Snapshot, Targets]))
def test_any_json(value: Any, kind: Any) -> None:
    for document in (value, {"signed": value, "signatures": []}, VALID | {"signatures": value}):
        try:
            wire.read(json.dumps(document).encode(), kind, name="t", max_bytes=1_000_000)
        except FormatError:
            continue
        assert kind is Timestamp
        assert document["signatures"] in ([], {}, "")


@given(st.sampled_from(sorted(VALID["signed"])), JSON)
def test_any_value_in_any_field(field: str, value: Any) -> None:
    changed = VALID | {"signed": VALID["signed"] | {field: value}}
    with contextlib.suppress(FormatError):
        read(json.dumps(changed).encode())


def test_a_key_that_comes_twice_is_refused() -> None:
    text = json.dumps(VALID).replace('{"version": 1}', '{"version": 1, "version": 2}')
    with pytest.raises(FormatError, match="twice"):
        read(text.encode())


@pytest.mark.parametrize(
    "number", ["1.0", "1e3", "NaN", "-Infinity", "9" * 17, "9" * 5000], ids=lambda number: number[:20]
)
def test_numbers_that_have_no_canonical_form_are_refused(number: str) -> None:
    with pytest.raises(FormatError):
        read(json.dumps(VALID).replace('{"version": 1}', f'{{"version": {number}}}').encode())


@pytest.mark.parametrize("version", ["true", '"1"', "0", "-1"])
def test_a_version_is_a_positive_integer(version: str) -> None:
    text = json.dumps(VALID)
    with pytest.raises(FormatError):
        read((text[:-3] + f"{version}}}}}").encode())


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded_before_parsing(opening: str) -> None:
    with pytest.raises(FormatError, match="nests more than"):
        read((opening * 200_000).encode())


def test_brackets_in_strings_do_not_nest() -> None:
    text = json.dumps(VALID | {"note": '[{"\\' * 100})
    assert read(text.encode()).version == 1


def test_size_is_bounded_before_parsing() -> None:
    with pytest.raises(SizeError, match="has 11 bytes; the limit is 10"):
        wire.read(b"x" * 11, Timestamp, name="t", max_bytes=10)


def test_another_type_is_named() -> None:
    with pytest.raises(FormatError, match="is of type 'timestamp', expected 'snapshot'"):
        wire.read(json.dumps(VALID).encode(), Snapshot, name="t", max_bytes=1000)


def test_signatures_are_bounded() -> None:
    many = [{"keyid": str(n), "sig": ""} for n in range(65)]
    with pytest.raises(FormatError, match="more than 64"):
        read(json.dumps(VALID | {"signatures": many}).encode())
