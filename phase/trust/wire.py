"""Bytes from anywhere -> TUF metadata, bounded before they are parsed."""

import json
import re
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp

from phase.trust.errors import FormatError, SizeError
from phase.trust.keys import is_usable

#: What a role's metadata nests at most: `targets` with delegations and custom fields uses ten.
MAX_DEPTH = 32
MAX_SIGNATURES = 64
_TOKENS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}]', re.DOTALL)
_Role = TypeVar("_Role", Root, Timestamp, Snapshot, Targets)


class Opened(NamedTuple):
    """One metadata file, read but not yet believed.

    Attributes:
        signed: the signed part.
        payload: the exact bytes the signatures are over: canonical JSON of the part as it came,
            not of what was understood of it.
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
        name: what to call it in errors.
        max_bytes: its role's limit.

    Returns:
        The signed part as its class, and with what is needed to verify it.

    Raises:
        SizeError: longer than the limit.
        FormatError: no metadata of this kind.
    """
    if len(data) > max_bytes:
        raise SizeError(f"{name} has {len(data)} bytes; the limit is {max_bytes}")
    document = _parse(data, name)
    try:
        signed = document["signed"]
        if signed["_type"] != kind.type:
            raise FormatError(f"{name} is of type {str(signed['_type'])[:40]!r}, expected {kind.type!r}")
        if type(signed["version"]) is not int:
            raise FormatError(f"{name}: its version is no integer")
        if len(document["signatures"]) > MAX_SIGNATURES:
            raise FormatError(f"{name} has more than {MAX_SIGNATURES} signatures")
        payload = cast("str", encode_canonical(signed)).encode()
        _drop_unusable_keys(signed)
        metadata = Metadata[_Role].from_dict(document)
    except FormatError:
        raise
    except Exception as error:  # the library raises whatever odd input makes it trip over
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise FormatError(f"{name} is no TUF metadata: {why}") from error
    signatures = {keyid: signature.signature for keyid, signature in metadata.signatures.items()}
    return metadata.signed, Opened(metadata.signed, payload, signatures)


def _parse(data: bytes, name: str) -> dict[str, Any]:
    depth = 0
    for token in _TOKENS.findall(data):
        if token in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH:
                raise FormatError(f"{name} nests more than {MAX_DEPTH} levels")
        elif token in (b"}", b"]"):
            depth -= 1
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is no usable JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise FormatError(f"{name} is no JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, if no key comes twice: readers differ in which of two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > 16:
        raise ValueError("an integer has more than 16 digits")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is no number of canonical JSON")


def _drop_unusable_keys(signed: dict[str, Any]) -> None:
    """Forget keys this client cannot verify with: they count for no threshold, and harm nobody.

    The library would refuse the whole file, and with it every later root that adds a new kind of key.
    """
    for holder in (signed, signed.get("delegations")):
        keys = holder.get("keys") if isinstance(holder, dict) else None
        if not isinstance(keys, dict):
            continue
        for keyid, key in list(keys.items()):
            if not is_usable(keyid, key):
                del keys[keyid]
