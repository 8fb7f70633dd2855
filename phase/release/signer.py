"""A signing key, in memory or elsewhere, and the place of a key on a hardware token."""

import abc
from hashlib import sha256

import msgspec
from nacl.signing import SigningKey
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer

from phase.release.errors import KeysError
from phase.trust.keys import ED25519, NaclKey, raw_public


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The place of a key on a hardware token.

    Attributes:
        module: path of the token's PKCS#11 library.
        token: label of the token.
        object: label of the key on it.
    """

    module: str
    token: str
    object: str


class ReleaseSigner(Signer):
    """Signs TUF metadata with an Ed25519 key."""

    @property
    @abc.abstractmethod
    def public_key(self) -> NaclKey:
        """The public half."""

    @property
    def public_hex(self) -> str:
        """The public half, 64 hex digits."""
        return self.public_key.raw.hex()


class NaclSigner(ReleaseSigner):
    """Signs with a key in memory.

    Args:
        key: the private key.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._public = public_key(bytes(key.verify_key).hex())

    @property
    def public_key(self) -> NaclKey:
        """The public half."""
        return self._public

    @property
    def seed(self) -> bytes:
        """The private half, 32 bytes."""
        return bytes(self._key)

    def sign(self, payload: bytes) -> Signature:
        """Sign canonical metadata."""
        return Signature(self._public.keyid, self._key.sign(payload).signature.hex())

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "NaclSigner":
        """Refused: keys of this kind come from files, see `load`.

        Raises:
            KeysError: always.
        """
        raise KeysError(f"{priv_key_uri[:80]!r} is not a key file", hint="Use phase.release.keys.load.")


def public_key(public: str) -> NaclKey:
    """The public key of 64 hex digits.

    Raises:
        KeysError: the text is not an Ed25519 public key.
    """
    if raw_public({"public": public}) is None:
        raise KeysError(f"{public[:80]!r} is not an Ed25519 public key", hint="It has 64 hex digits.")
    # Any unique text may name a key; other tools show this hash, too.
    keyid = sha256(
        b'{"keytype":"ed25519","keyval":{"public":"%b"},"scheme":"ed25519"}' % public.encode()
    ).hexdigest()
    return NaclKey(keyid, *ED25519, {"public": public})
