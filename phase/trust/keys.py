"""Keys and signatures of TUF metadata: Ed25519, verified by PyNaCl.

A program that must accept keys of another kind registers a class of its own, derived from
`VerifyingKey`, with the library (`KEY_FOR_TYPE_AND_SCHEME`). The seed accepts Ed25519 only.
"""

from abc import abstractmethod
from typing import Any

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, Key, Signature

ED25519 = ("ed25519", "ed25519")


class VerifyingKey(Key):
    """A public key whose signatures count."""

    @property
    @abstractmethod
    def raw(self) -> bytes:
        """The key itself: two keys with the same bytes are one key, also under different ids."""

    @abstractmethod
    def has_signed(self, signature: object, data: bytes) -> bool:
        """Whether a signature, as metadata holds it, is this key's over `data`."""


class NaclKey(VerifyingKey):
    """An Ed25519 public key as TUF metadata holds it (`keyval.public`, 64 hex digits)."""

    @classmethod
    def from_dict(cls, keyid: str, key_dict: dict[str, Any]) -> "NaclKey":
        """Read a key from metadata.

        Raises:
            ValueError: the public key is not 32 bytes in hex.
        """
        keytype, scheme, keyval = cls._from_dict(key_dict)
        if raw_public(keyval) is None:
            raise ValueError("an Ed25519 public key has 64 hex digits")
        return cls(keyid, keytype, scheme, keyval, key_dict)

    def to_dict(self) -> dict[str, Any]:
        """The key as metadata holds it."""
        return self._to_dict()

    @property
    def raw(self) -> bytes:
        """The 32 bytes that are the key."""
        return bytes.fromhex(self.keyval["public"])

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        """Check one signature.

        Raises:
            UnverifiedSignatureError: it is not this key's signature over `data`.
        """
        if not self.has_signed(signature.signature, data):
            raise UnverifiedSignatureError(f"signature of key {self.keyid[:16]} is invalid")

    def has_signed(self, signature: object, data: bytes) -> bool:
        """Whether a signature, 128 hex digits, is this key's over `data` (RFC 8032)."""
        try:
            if not isinstance(signature, str) or len(raw := bytes.fromhex(signature)) != 64:
                return False
            crypto_sign_open(raw + data, self.raw)
        except (ValueError, BadSignatureError):
            return False
        return True


def is_usable(keyid: str, key: object) -> bool:
    """Whether this program can verify with a key in metadata."""
    if not isinstance(key, dict):
        return False
    # As texts: metadata may hold anything, and a list cannot be the key of a dictionary.
    found = KEY_FOR_TYPE_AND_SCHEME.get((str(key.get("keytype")), str(key.get("scheme"))))
    if found is None or not issubclass(found, VerifyingKey):
        return False
    try:
        # A copy, because reading a key takes its dictionary apart.
        found.from_dict(keyid, dict(key))
    except (KeyError, ValueError, TypeError):
        return False
    return True


def raw_public(keyval: object) -> bytes | None:
    """The 32 bytes of a `keyval`; None if it does not hold an Ed25519 public key."""
    public = keyval.get("public") if isinstance(keyval, dict) else None
    if not isinstance(public, str) or len(public) != 64:
        return None
    try:
        raw = bytes.fromhex(public)
    except ValueError:
        return None
    return raw if len(raw) == 32 else None


# The library's own way to choose the class for a kind of keys. Its default class would need another
# cryptographic library, or verify in Python, hundreds of times slower.
KEY_FOR_TYPE_AND_SCHEME[ED25519] = NaclKey
