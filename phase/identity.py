"""A node's identity: one Ed25519 key, made once, readable by its owner alone."""

import os
import stat
from pathlib import Path

import msgspec
from nacl.signing import SigningKey

from phase import files
from phase.errors import PhaseError, unreadable
from phase.foreign import read_json

_FORMAT = "phase-identity-v1"
_MAX_BYTES = 4096


class IdentityError(PhaseError):
    """The identity file cannot be made, read or trusted."""


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    public: str
    seed: str


class Identity:
    """A node's signing key.

    Args:
        key: the private key.
    """

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        #: 64 hex digits.
        self.public_key: str = bytes(key.verify_key).hex()

    def __repr__(self) -> str:
        return f"Identity({self.id8})"

    @classmethod
    def ephemeral(cls) -> "Identity":
        """An identity that ends with this process."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """The identity of a known private seed.

        Args:
            seed: 32 bytes (RFC 8032, section 5.1.5).
        """
        return cls(SigningKey(seed))

    @classmethod
    def load_or_create(cls, path: Path) -> "Identity":
        """Read the identity file, or make it if it does not exist.

        Args:
            path: the file. Of several processes that start at once, all get the same identity.

        Raises:
            IdentityError: it cannot be made or read, others may read it, or it is damaged.
        """
        try:
            return cls.load(path)
        except FileNotFoundError:
            pass
        identity = cls.ephemeral()
        stored = _Stored(_FORMAT, identity.public_key, bytes(identity._key).hex())
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.create(path, msgspec.json.encode(stored) + b"\n", mode=0o600)
        except FileExistsError:
            pass  # another process was first; its identity counts
        except OSError as error:
            raise IdentityError(
                f"identity {path} cannot be written: {error.strerror}",
                hint="Set PHASE_STATE to a directory that you can write to.",
            ) from error
        try:
            return cls.load(path)
        except FileNotFoundError:
            raise IdentityError(f"identity {path} vanished while it was made") from None

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Read an identity file.

        Raises:
            FileNotFoundError: it does not exist.
            IdentityError: it cannot be read, others may read it, or it is damaged.
        """
        data = _read_private(path)
        try:
            stored = read_json(data, _Stored)
            if stored.format != _FORMAT:
                raise ValueError(f"format is {stored.format[:40]!r}, not {_FORMAT!r}")
            identity = cls(SigningKey(bytes.fromhex(stored.seed)))
        except (ValueError, TypeError) as error:
            raise _damaged(path, str(error)) from error
        if identity.public_key != stored.public:
            raise _damaged(path, "the public key does not belong to the seed")
        return identity

    @property
    def node_id(self) -> str:
        """The node's name: its public key, 64 hex digits."""
        return self.public_key

    @property
    def id8(self) -> str:
        """The first eight digits, for people."""
        return self.public_key[:8]

    def seed(self) -> bytes:
        """The private seed, 32 bytes (RFC 8032, section 5.1.5), for a library that signs by itself."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (RFC 8032), 64 bytes."""
        return self._key.sign(message).signature


def _read_private(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityError(unreadable(f"identity {path}", error)) from error
    try:
        # Ask about the open file, since the name could point elsewhere by now.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IdentityError(f"identity {path} is not a regular file")
        if status.st_mode & 0o077:
            raise IdentityError(
                f"identity {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read the key",
                hint=f"Run chmod 600 {path}; if it may have been copied, remove it for a new one.",
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise IdentityError(
                f"identity {path} belongs to user {status.st_uid}, not to {os.geteuid()}",
                hint="Use the state directory of this user.",
            )
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)


def _damaged(path: Path, why: str) -> IdentityError:
    return IdentityError(
        f"identity {path} is damaged: {why}", hint="Restore a copy, or remove it to get a new identity."
    )
