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
    with pytest.raises(FormatError, match="nested levels"):
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
    with pytest.raises(FormatError, match="65 signatures; the limit is 64"):
        read(json.dumps(VALID | {"signatures": many}).encode())


def _signed(**changed: Any) -> bytes:
    return json.dumps(VALID | {"signed": VALID["signed"] | changed}).encode()


@pytest.mark.parametrize("separator", ["[],", "{},", "1,"])
def test_values_are_counted_before_they_are_parsed(separator: str) -> None:
    """Time goes into values, not bytes; a few thousand are always allowed."""
    few = ('{"signed":[' + separator * 600 + "1]}").encode()
    with pytest.raises(FormatError, match=r"^t is not TUF metadata"):
        wire.read(few, Timestamp, name="t", max_bytes=16_384)
    many = ('{"signed":[' + separator * 3000 + "1]}").encode()
    with pytest.raises(FormatError, match=r"^t has about .* values in .* the limit is 2048"):
        wire.read(many, Timestamp, name="t", max_bytes=16_384)


def test_so_many_values_as_the_limit_are_read() -> None:
    # An object, a list and its values: one more than commas, and one for each of the two.
    text = '{"signed":[' + "1," * (wire.LEAST_VALUES - 3) + "1]}"
    with pytest.raises(FormatError, match=r"^t is not TUF metadata"):
        wire.read(text.encode(), Timestamp, name="t", max_bytes=16_384)
    with pytest.raises(FormatError, match=r"^t has about 2049 values in 4\d+ bytes; the limit is 2048"):
        wire.read(text.replace("1]", "1,1]").encode(), Timestamp, name="t", max_bytes=16_384)


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_as_many_levels_as_the_limit_are_read_and_no_more(brackets: str) -> None:
    opening = "[" if brackets == "[]" else '{"a":'
    closing = brackets[1]

    def nested(levels: int) -> bytes:
        # The document is the first level, and what is beside stands after one that was closed again.
        inner = opening * (levels - 1) + "1" + closing * (levels - 1)
        return json.dumps(VALID)[:-1].encode() + f',"beside":[],"deep":{inner}}}'.encode()

    assert read(nested(wire.MAX_DEPTH)).version == 1
    with pytest.raises(FormatError, match=r"^t has more than 32 nested levels"):
        read(nested(wire.MAX_DEPTH + 1))


@pytest.mark.parametrize("text", [b"]", b"}" * 3, b'["a"]]'])
def test_brackets_that_do_not_match_are_named(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"^t is not usable JSON: its brackets or quotes do not match"):
        read(text)


@pytest.mark.parametrize("text", [b"[]", b"1", b'"a"', b"null"])
def test_what_is_not_an_object_is_named(text: bytes) -> None:
    with pytest.raises(FormatError, match=r"^t is not a JSON object"):
        read(text)


@pytest.mark.parametrize("number", ["1.5", "1e2", "NaN", "Infinity"])
def test_a_number_that_is_not_whole_is_refused_wherever_it_stands(number: str) -> None:
    with pytest.raises(FormatError, match=f"^t is not usable JSON: {number} is not a number of canonical"):
        read(_signed(note=0).replace(b'"note": 0', f'"note": {number}'.encode()))


def test_sixteen_digits_are_read() -> None:
    assert read(_signed(version=10**15)).version == 10**15
    with pytest.raises(FormatError, match="more than 16 digits"):
        read(_signed(version=10**16))


@pytest.mark.parametrize(("field", "value"), [("version", True), ("length", True)])
def test_what_the_timestamp_pins_has_whole_numbers(field: str, value: object) -> None:
    meta = {"snapshot.json": {"version": 1, "length": 5} | {field: value}}
    with pytest.raises(FormatError, match=r"not an integer|not TUF metadata"):
        read(_signed(meta=meta))


def test_a_key_that_cannot_be_used_is_dropped_where_roles_are_delegated_too() -> None:
    good = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "ab" * 32}}
    bad = good | {"scheme": "unknown", "keyval": {}}
    role = {"name": "a", "keyids": ["k"], "threshold": 1, "terminating": True, "paths": ["*"]}
    signed = {
        "_type": "targets",
        "expires": "2030-01-01T00:00:00Z",
        "spec_version": "1.0.34",
        "version": 1,
        "targets": {},
        "keys": [],
        "delegations": {"keys": {"k": good, "b": bad}, "roles": [role]},
    }
    data = json.dumps({"signatures": [], "signed": signed}).encode()
    found, _ = wire.read(data, Targets, name="t", max_bytes=100_000)
    assert found.delegations is not None
    assert set(found.delegations.keys) == {"k"}
