"""Hostile metadata costs little time: `phase.trust.wire` reads it before there is any trust."""

import json
from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from tuf.api.metadata import Root, Snapshot, Targets

from phase.trust import FormatError, SizeError, TrustError, wire

_COMMON = {"_type": "root", "version": 1, "spec_version": "1.0.31", "expires": "2030-01-01T00:00:00Z"}

#: Name -> so many bytes of it.
FAMILIES: dict[str, Callable[[int], bytes]] = {
    "a string of escapes without an end": lambda size: b'"' + b'\\"' * (size // 2 - 1),
    "a string of escapes": lambda size: b'{"a":"' + b'\\"' * (size // 2 - 8) + b'"}',
    "backslashes": lambda size: b'"' + b"\\" * (size - 1),
    "quotes": lambda size: b'"' * size,
    "quotes and backslashes in turn": lambda size: b'"\\' * (size // 2),
    "brackets that open": lambda size: b"[" * size,
    "brackets that close": lambda size: b"]" * size,
    "many small lists": lambda size: b"[" + b"[]," * (size // 3 - 2) + b"[]]",
    "many deep lists": lambda size: b"[" + (b"[" * 30 + b"]" * 30 + b",") * (size // 61 - 2) + b"[]]",
    "many numbers": lambda size: b"[" + b"1," * (size // 2 - 2) + b"1]",
    "many keys": lambda size: b"{" + b",".join(b'"%08d":1' % n for n in range(size // 16)) + b"}",
    "one key many times": lambda size: b"{" + b'"a":1,' * (size // 6 - 2) + b'"a":1}',
    "digits": lambda size: b'{"a":' + b"9" * (size - 8) + b"}",
    "a huge exponent": lambda size: b'{"a":1e' + b"9" * (size - 8) + b"}",
    "surrogates": lambda size: b'{"a":"' + b"\\ud800" * (size // 6 - 2) + b'"}',
    "blanks": lambda size: b" " * size,
    "not text": lambda size: b"\xff" * size,
}


def seconds(data: bytes, kind: Any, limit: int) -> float:
    """CPU time until it is refused."""
    began = process_time()
    with pytest.raises(TrustError):
        wire.read(data, kind, name="t", max_bytes=limit)
    return process_time() - began


@pytest.mark.parametrize("family", FAMILIES)
def test_slow_json_takes_linear_time(family: str) -> None:
    """Half a megabyte as a root, which a stranger may send; five as targets. Now some 30 and 300 ms."""
    assert seconds(FAMILIES[family](510_000), Root, 512_000) < 0.5
    assert seconds(FAMILIES[family](4_990_000), Targets, 5_000_000) < 2.5


def test_the_string_that_took_44_seconds() -> None:
    assert seconds(b'"' + b'\\"' * 60_000, Root, 512_000) < 0.2


def test_values_are_bounded_by_the_role_s_size() -> None:
    many = json.dumps({"signed": _COMMON | {"x": [1] * 40_000}, "signatures": []}).encode()
    with pytest.raises(FormatError, match=r"has about 4000. values in 1.* bytes; the limit is 32000"):
        wire.read(many, Root, name="t", max_bytes=512_000)


@pytest.mark.parametrize("more", [b"]", b'"', b'"\\'])
def test_unmatched_brackets_and_quotes_are_refused(more: bytes) -> None:
    with pytest.raises(FormatError, match="is not usable JSON"):
        wire.read(b"{}" + more, Root, name="t", max_bytes=100)


def test_what_a_library_says_of_foreign_text_is_one_line() -> None:
    forged = _COMMON | {"spec_version": "1.0\n\x1b[31m@phase kernel ok", "keys": {}, "roles": {}}
    with pytest.raises(FormatError) as caught:
        wire.read(json.dumps({"signed": forged, "signatures": []}).encode(), Root, name="t", max_bytes=9999)
    assert "@phase kernel ok" in str(caught.value)
    assert str(caught.value).isprintable()


def _snapshot(meta: dict[str, Any]) -> bytes:
    signed = _COMMON | {"_type": "snapshot", "meta": meta}
    return json.dumps({"signed": signed, "signatures": []}).encode()


@pytest.mark.parametrize("pin", [{"version": True}, {"version": 1, "length": True}])
def test_true_is_not_a_version(pin: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="t: a version, length or threshold is not an integer"):
        wire.read(_snapshot({"targets.json": pin}), Snapshot, name="t", max_bytes=9999)


def test_true_is_not_a_threshold_nor_a_length() -> None:
    roles = {name: {"keyids": [], "threshold": 1} for name in ("root", "timestamp", "snapshot", "targets")}
    roles["snapshot"]["threshold"] = True
    root = {"signed": _COMMON | {"keys": {}, "roles": roles}, "signatures": []}
    with pytest.raises(FormatError, match="not an integer"):
        wire.read(json.dumps(root).encode(), Root, name="t", max_bytes=9999)
    role = {"name": "r", "keyids": [], "threshold": True, "terminating": False, "paths": ["*"]}
    for part in (
        {"targets": {"a": {"length": True, "hashes": {"sha256": "0"}}}},
        {"targets": {}, "delegations": {"keys": {}, "roles": [role]}},
    ):
        targets = {"signed": _COMMON | {"_type": "targets"} | part, "signatures": []}
        with pytest.raises(FormatError, match="not an integer"):
            wire.read(json.dumps(targets).encode(), Targets, name="t", max_bytes=9999)


@pytest.mark.parametrize("name", ["x" * 129, "a\nb", "ä.json"])
def test_a_snapshot_s_names_can_be_remembered(name: str) -> None:
    with pytest.raises(FormatError, match="is not a name of a metadata file"):
        wire.read(_snapshot({name: {"version": 1}}), Snapshot, name="t", max_bytes=99_999)
    wire.read(_snapshot({"x" * 128: {"version": 1}}), Snapshot, name="t", max_bytes=99_999)


def test_a_snapshot_s_names_are_counted() -> None:
    limit = wire.MAX_FILES
    names = {f"{n}.json": {"version": 1} for n in range(limit + 1)}
    with pytest.raises(FormatError, match=f"names {limit + 1} files; the limit is {limit}"):
        wire.read(_snapshot(names), Snapshot, name="t", max_bytes=2_000_000)
    names.popitem()
    assert len(wire.read(_snapshot(names), Snapshot, name="t", max_bytes=2_000_000)[0].meta) == limit


def test_size_comes_first() -> None:
    with pytest.raises(SizeError):
        wire.read(b'"' * 101, Root, name="t", max_bytes=100)
