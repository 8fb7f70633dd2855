"""Encrypts a private key with a passphrase: argon2id derives the key of a secretbox.

Source: RFC 9106 (argon2id), libsodium's secretbox (XSalsa20 and Poly1305).
"""

import msgspec
from nacl import pwhash, secret, utils
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as CryptoRuntimeError

from phase.release.errors import KeysError

#: Memory and passes argon2id costs, as libsodium names them: bytes, operations.
COSTS = {
    "interactive": (pwhash.argon2id.MEMLIMIT_INTERACTIVE, pwhash.argon2id.OPSLIMIT_INTERACTIVE),
    "moderate": (pwhash.argon2id.MEMLIMIT_MODERATE, pwhash.argon2id.OPSLIMIT_MODERATE),
    "sensitive": (pwhash.argon2id.MEMLIMIT_SENSITIVE, pwhash.argon2id.OPSLIMIT_SENSITIVE),
}
#: Limit for the memory, so that a damaged file does not ask for all of it.
_MAX_MEMORY, _MAX_OPERATIONS = 2 << 30, 64
MIN_PASSPHRASE = 8


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An encrypted secret, and the parameters that derive its key.

    Attributes:
        kdf: always `argon2id13`.
        memory: of the derivation, bytes.
        operations: of the derivation.
        salt: 16 bytes, hex.
        box: nonce and ciphertext, hex.
    """

    kdf: str
    memory: int
    operations: int
    salt: str
    box: str


def seal(secret_bytes: bytes, passphrase: str, *, cost: str = "moderate") -> Sealed:
    """Encrypt a secret.

    Args:
        secret_bytes: the secret.
        passphrase: at least `MIN_PASSPHRASE` characters.
        cost: one of `COSTS`.

    Raises:
        KeysError: the passphrase is too short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise KeysError(f"the passphrase has {len(passphrase)} characters, {MIN_PASSPHRASE} are needed")
    memory, operations = COSTS[cost]
    salt = utils.random(pwhash.argon2id.SALTBYTES)
    box = secret.SecretBox(_derive(passphrase, salt, memory, operations))
    return Sealed("argon2id13", memory, operations, salt.hex(), bytes(box.encrypt(secret_bytes)).hex())


def unseal(sealed: Sealed, passphrase: str) -> bytes:
    """Decrypt a secret.

    Raises:
        KeysError: the passphrase is wrong, or the file was changed.
    """
    if (
        sealed.kdf != "argon2id13"
        or not 0 < sealed.memory <= _MAX_MEMORY
        or not 0 < sealed.operations <= _MAX_OPERATIONS
    ):
        raise KeysError(f"its key derivation {sealed.kdf[:40]!r} is unknown, or costs more than is allowed")
    try:
        key = _derive(passphrase, bytes.fromhex(sealed.salt), sealed.memory, sealed.operations)
        return bytes(secret.SecretBox(key).decrypt(bytes.fromhex(sealed.box)))
    except CryptoError as error:
        raise KeysError("the passphrase is wrong, or the file was changed") from error
    except (ValueError, TypeError) as error:
        raise KeysError(f"its encryption is damaged: {error}") from error


def _derive(passphrase: str, salt: bytes, memory: int, operations: int) -> bytes:
    try:
        return pwhash.argon2id.kdf(
            secret.SecretBox.KEY_SIZE, passphrase.encode(), salt, opslimit=operations, memlimit=memory
        )
    except CryptoRuntimeError as error:  # of libsodium, which has no other reason for it
        raise KeysError(
            f"its passphrase takes {memory >> 20} MiB of memory, and this machine has not got them",
            hint="Free some, or make keys with a lower --cost.",
        ) from error
