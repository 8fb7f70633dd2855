"""DSSE 1.0.2 envelopes over Ed25519: signatures over exact bytes, never over re-serialised JSON.

Source: the DSSE protocol and envelope specification, version 1.0.2.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from phase.errors import PhaseError
from phase.foreign import MalformedError, read_json

#: Limit for an envelope, bytes.
MAX_ENVELOPE = 4 << 20
#: Limit for the signatures of an envelope; with one more it is refused.
MAX_SIGNATURES = 16
MAX_KEYS = 64
_BASE64 = re.compile("(?:[A-Za-z0-9+/]*|[A-Za-z0-9_-]*)={0,2}")


class DsseError(PhaseError):
    """Root of every error about envelopes."""


class DsseFormatError(DsseError):
    """The bytes are not an envelope, or not of the expected type."""


class DsseSignatureError(DsseError):
    """Too few of the accepted keys have signed."""


class SigningIdentity(Protocol):
    """A signer: a node's identity, or another object with its interface."""

    @property
    def public_key(self) -> str:
        """The Ed25519 public key, 64 hex digits."""

    def sign(self, message: bytes) -> bytes:
        """Sign a message; returns 64 bytes."""


class _Signature(msgspec.Struct, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


def pae(payload_type: str, body: bytes) -> bytes:
    """The bytes that are signed (DSSE, "pre-authentication encoding")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def sign(payload_type: str, body: bytes, identities: Iterable[SigningIdentity]) -> bytes:
    """Put a body into an envelope.

    Args:
        payload_type: media type of the body; each use has its own.
        body: the exact bytes to sign.
        identities: the signers; at least one.

    Returns:
        The envelope, JSON.

    Raises:
        DsseError: there is no signer, or the envelope would be larger than verifiers read.
    """
    message = pae(payload_type, body)
    signatures = tuple(
        _Signature(sig=base64.b64encode(each.sign(message)).decode(), keyid=each.public_key)
        for each in identities
    )
    if not 0 < len(signatures) <= MAX_SIGNATURES:
        raise DsseError(f"an envelope takes 1 to {MAX_SIGNATURES} signatures, not {len(signatures)}")
    envelope = msgspec.json.encode(_Envelope(base64.b64encode(body).decode(), payload_type, signatures))
    if len(envelope) > MAX_ENVELOPE:
        raise DsseError(f"the envelope has {len(envelope)} bytes; the limit is {MAX_ENVELOPE}")
    return envelope


def verify(
    envelope: bytes,
    *,
    keys: Mapping[str, object] | Iterable[str],
    threshold: int = 1,
    payload_type: str,
) -> bytes:
    """Verify an envelope, and return its body.

    Args:
        envelope: JSON, from anywhere.
        keys: the accepted public keys, 64 hex digits each; or a mapping with such keys.
        threshold: how many different keys must have signed.
        payload_type: the accepted type.

    Returns:
        The signed bytes. Parse only these, and no other part of the envelope.

    Raises:
        DsseFormatError: the bytes are not an envelope, are too large, or of another type.
        DsseSignatureError: fewer than `threshold` of the keys have signed.
    """
    accepted = {_public_key(key) for key in keys}
    if len(accepted) > MAX_KEYS:
        raise DsseError(f"the caller accepts {len(accepted)} keys; the limit is {MAX_KEYS}")
    if threshold < 1:
        raise DsseError(f"a threshold of {threshold} would accept anything")
    opened = _open(envelope)
    if opened.payload_type != payload_type:
        raise DsseFormatError(f"envelope holds {opened.payload_type[:100]!r}, expected {payload_type!r}")
    body = _decode(opened.payload)
    message = pae(opened.payload_type, body)
    # The keyid is not authenticated, so it is ignored: every key is tried, and counts once.
    signed = {
        key for key in accepted if any(_is_signed(key, each.sig, message) for each in opened.signatures)
    }
    if len(signed) < threshold:
        raise DsseSignatureError(
            f"{len(signed)} of {len(accepted)} accepted keys have signed, {threshold} must",
            hint="It was changed after it was signed, or other keys have signed it.",
        )
    return body


def claimed_keys(envelope: bytes) -> tuple[str, ...]:
    """The keys that have signed an envelope by its own words, which only `verify` can check.

    Raises:
        DsseFormatError: the bytes are not an envelope, are too large, or have too many signatures.
    """
    return tuple(each.keyid for each in _open(envelope).signatures)


def _open(envelope: bytes) -> _Envelope:
    if len(envelope) > MAX_ENVELOPE:
        raise DsseFormatError(f"envelope has {len(envelope)} bytes; the limit is {MAX_ENVELOPE}")
    try:
        opened = read_json(envelope, _Envelope)
    except MalformedError as error:
        raise DsseFormatError(f"not a DSSE envelope: {error}") from error
    if len(opened.signatures) > MAX_SIGNATURES:
        raise DsseFormatError(
            f"envelope has {len(opened.signatures)} signatures; the limit is {MAX_SIGNATURES}"
        )
    return opened


def _is_signed(key: bytes, signature: str, message: bytes) -> bool:
    try:
        raw = _decode(signature)
        if len(raw) != 64:
            return False
        crypto_sign_open(raw + message, key)
    except (DsseFormatError, BadSignatureError):
        return False
    return True


def _public_key(text: str) -> bytes:
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise DsseError(f"{text[:80]!r} is not an Ed25519 public key", hint="It has 64 hex digits.")
    return bytes.fromhex(text)


def _decode(text: str) -> bytes:
    """Read base64 of either alphabet, padded or not: the specification asks for both.

    Of all texts that a lenient reader decodes to the same bytes, only these are read, so that every reader
    takes the same envelopes.
    """
    if _BASE64.fullmatch(text) is None:
        raise DsseFormatError(f"not base64: {text[:20]!a}")
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DsseFormatError(f"not base64: {error}") from error
    if len(text) not in (len(plain), -(-len(plain) // 4) * 4):
        raise DsseFormatError("not base64: it has too little or too much padding")
    if base64.b64encode(raw).rstrip(b"=") != plain.encode():
        raise DsseFormatError("not base64: the last character has bits that mean nothing")
    return raw
