"""Reads TUF metadata from untrusted bytes, which are bounded before they are parsed."""

import json
import re
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Signed, Snapshot, Targets, Timestamp

from phase.errors import printable
from phase.trust.errors import FormatError, SizeError
from phase.trust.keys import is_usable

#: Limit for the nested levels of metadata: `targets` with delegations and custom fields uses ten.
MAX_DEPTH = 32
MAX_SIGNATURES = 64
#: A role may have one JSON value for this many bytes of its limit. Parsing time depends on values, not
#: bytes: half a megabyte of `[],` takes ten times as long as half a megabyte of keys. Metadata that Phase
#: publishes has one value in 25 bytes or more.
BYTES_PER_VALUE = 16
#: This many values are always allowed.
LEAST_VALUES = 2048
#: Limits for the files that a snapshot names, and for their names: the floor keeps them all.
MAX_FILES = 8192
MAX_FILE_NAME = 128
# A string may lack its end: otherwise each quote in it would be tried as the start of another string.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)
_Role = TypeVar("_Role", Root, Timestamp, Snapshot, Targets)


class Opened(NamedTuple):
    """One metadata file, read but not yet believed.

    Attributes:
        signed: the signed part.
        payload: the exact bytes that are signed: canonical JSON of the signed part as received, with
            unknown fields.
        signatures: key id to signature, hex.
    """

    signed: Signed
    payload: bytes
    signatures: dict[str, str]


def read(data: bytes, kind: type[_Role], *, name: str, max_bytes: int) -> tuple[_Role, Opened]:
    """Read one metadata file.

    Args:
        data: the file.
        kind: the class of its signed part.
        name: its name in errors.
        max_bytes: the limit of its role.

    Returns:
        The signed part as its class, and the parts needed to verify it.

    Raises:
        SizeError: it is longer than the limit.
        FormatError: it is not metadata of this kind.
    """
    if len(data) > max_bytes:
        raise SizeError(f"{name} has {len(data)} bytes; the limit is {max_bytes}")
    document = _parse(data, name, max(max_bytes // BYTES_PER_VALUE, LEAST_VALUES))
    try:
        signed = document["signed"]
        if signed["_type"] != kind.type:
            raise FormatError(f"{name} is of type {str(signed['_type'])[:40]!r}, expected {kind.type!r}")
        if type(signed["version"]) is not int:
            raise FormatError(f"{name}: its version is not an integer")
        if len(document["signatures"]) > MAX_SIGNATURES:
            raise FormatError(
                f"{name} has {len(document['signatures'])} signatures; the limit is {MAX_SIGNATURES}"
            )
        payload = cast("str", encode_canonical(signed)).encode()
        _drop_unusable_keys(signed)
        metadata = Metadata[_Role].from_dict(document)
        _check_types(metadata.signed, name)
    except FormatError:
        raise
    except Exception as error:  # the library raises many kinds of errors for malformed input
        why = f"{type(error).__name__}: {printable(str(error)[:200])}"
        raise FormatError(f"{name} is not TUF metadata: {why}") from error
    signatures = {keyid: signature.signature for keyid, signature in metadata.signatures.items()}
    return metadata.signed, Opened(metadata.signed, payload, signatures)


def _parse(data: bytes, name: str, max_values: int) -> dict[str, Any]:
    _check_nesting(data, name, 4 * max_values)
    # A cheap upper bound: a container has one value more than commas.
    values = data.count(b",") + data.count(b"[") + data.count(b"{") + 1
    if values > max_values:
        raise FormatError(
            f"{name} has about {values} values in {len(data)} bytes; the limit is {max_values}"
        )
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not usable JSON: {printable(str(error)[:200])}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{name} is not a JSON object")
    return document


def _check_nesting(data: bytes, name: str, max_tokens: int) -> None:
    depth = 0
    for count, token in enumerate(_TOKENS.finditer(data)):
        first = data[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        if depth > MAX_DEPTH:
            raise FormatError(f"{name} has more than {MAX_DEPTH} nested levels")
        if depth < 0 or count > max_tokens:
            raise FormatError(f"{name} is not usable JSON: its brackets or quotes do not match")


def _check_types(signed: Signed, name: str) -> None:
    """Refuse values of a wrong type that the library accepts and that would fail later.

    Raises:
        FormatError: a number is `true`, which Python takes for 1, or a truth value is a number; a name is
            not a text; a file's name is too long or not plain.
    """
    numbers: list[object] = [signed.version]
    truths: list[object] = []
    texts: list[object] = []
    roles: list[Role] = []
    files: dict[str, MetaFile] = {}
    if isinstance(signed, Root):
        roles = list(signed.roles.values())
        truths = [signed.consistent_snapshot]
    elif isinstance(signed, Timestamp):
        files = {"snapshot.json": signed.snapshot_meta}
    elif isinstance(signed, Snapshot):
        files = signed.meta
    elif isinstance(signed, Targets):
        numbers += [target.length for target in signed.targets.values()]
        if signed.delegations is not None:
            delegated = list((signed.delegations.roles or {}).values())
            roles, truths = list(delegated), [role.terminating for role in delegated]
            texts += [role.name for role in delegated]
    numbers += [role.threshold for role in roles]
    numbers += [pin.version for pin in files.values()]
    numbers += [pin.length for pin in files.values() if pin.length is not None]
    if any(type(number) is not int for number in numbers):
        raise FormatError(f"{name}: a version, length or threshold is not an integer")
    if any(type(truth) is not bool for truth in truths if truth is not None):
        raise FormatError(f"{name}: a truth value is not true or false")
    texts += [keyid for role in roles for keyid in role.keyids]
    if not all(isinstance(text, str) for text in texts):
        raise FormatError(f"{name}: the name of a key or a role is not a text")
    if len(files) > MAX_FILES:
        raise FormatError(f"{name} names {len(files)} files; the limit is {MAX_FILES}")
    for file in files:
        if len(file) > MAX_FILE_NAME or not file.isascii() or not file.isprintable():
            raise FormatError(f"{name}: {file[:40]!r} is not a name of a metadata file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, if no key comes twice: parsers differ in which of two values they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > 16:
        raise ValueError("an integer has more than 16 digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not a number of canonical JSON")


def _drop_unusable_keys(signed: dict[str, Any]) -> None:
    """Drop the keys that this client cannot verify with. They then count for no threshold.

    The library would refuse the whole file, and so every later root that adds a new kind of key.
    """
    for holder in (signed, signed.get("delegations")):
        keys = holder.get("keys") if isinstance(holder, dict) else None
        if not isinstance(keys, dict):
            continue
        for keyid, key in list(keys.items()):
            if not is_usable(keyid, key):
                del keys[keyid]
