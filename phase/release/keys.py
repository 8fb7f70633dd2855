"""Signing keys of releases: one file per key, PyNaCl alone.

    root-1.json  root-2.json  root-3.json     offline; two of three sign
    targets.json                              signs what each release role may sign
    release.json                              signs releases, every channel and architecture
    snapshot.json  timestamp.json             where publishing runs unattended

The part after the role in a name (`root-1`, `root-alice`) only tells keys apart.
A directory may hold only some of them: a host that only renews timestamps needs two.
A file holds its private key in the clear, readable by its owner alone, or under a passphrase; or it names
the hardware token that has the key (`phase.release.token`).
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec
from nacl.signing import SigningKey
from securesystemslib.signer import Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from phase import files
from phase.errors import unreadable
from phase.foreign import read_json
from phase.release.errors import KeysError
from phase.release.sealed import Sealed, seal, unseal
from phase.release.signer import NaclSigner
from phase.release.signer import Place as Place
from phase.release.signer import ReleaseSigner as ReleaseSigner
from phase.release.signer import public_key as public_key

ROLES = ("root", "timestamp", "snapshot", "targets", "release")
#: How many keys a new set has for each role.
COUNTS = {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1, "release": 1}
#: The same for a repository that signs for this machine alone: more keys in one place would not protect it.
LOCAL_COUNTS = dict.fromkeys(ROLES, 1)
#: Roles whose keys sign without a person, every few days.
ONLINE = ("timestamp", "snapshot")
_FORMAT = "phase-release-key-v1"
_MAX_BYTES = 4096
_KEY_NAME = re.compile(r"([a-z]+)(?:-[A-Za-z0-9][A-Za-z0-9_-]{0,63})?\.json")
_TEST_NOTE = "A test key, published on purpose. Whatever it signs proves nothing."


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: str
    role: str
    public: str
    #: The private key, hex; empty if it is `sealed` or on a `token`.
    seed: str = ""
    sealed: Sealed | None = None
    token: Place | None = None
    #: Says that the key is public knowledge; such a file may be readable by all.
    test: str = ""


class ReleaseKeys:
    """The signers at hand, by role.

    Args:
        signers: role to signers. A role without any cannot be signed here.
    """

    def __init__(self, signers: Mapping[str, tuple[ReleaseSigner, ...]]) -> None:
        unknown = set(signers) - set(ROLES)
        if unknown:
            raise KeysError(
                f"no role is called {', '.join(sorted(unknown))}", hint=f"Roles: {', '.join(ROLES)}."
            )
        self._signers = {role: tuple(signers.get(role, ())) for role in ROLES}

    @classmethod
    def generate(cls, counts: Mapping[str, int] = COUNTS) -> "ReleaseKeys":
        """New random keys.

        Args:
            counts: how many for each role.
        """
        return cls(
            {
                role: tuple(NaclSigner(SigningKey.generate()) for _ in range(count))
                for role, count in counts.items()
            }
        )

    @classmethod
    def from_seed(cls, seed: str, counts: Mapping[str, int] = COUNTS) -> "ReleaseKeys":
        """The same keys every time, for tests.

        Args:
            seed: any text. A person who knows it has the keys.
            counts: how many for each role.
        """
        return cls(
            {
                role: tuple(
                    NaclSigner(SigningKey(sha256(f"phase test key {seed} {role} {n}".encode()).digest()))
                    for n in range(1, count + 1)
                )
                for role, count in counts.items()
            }
        )

    def __getitem__(self, role: str) -> tuple[ReleaseSigner, ...]:
        return self._signers[role]

    def threshold(self, role: str) -> int:
        """How many keys of a role must sign in a repository made with these keys: more than half."""
        return len(self[role]) // 2 + 1

    def but(self, **changed: tuple[ReleaseSigner, ...]) -> "ReleaseKeys":
        """These keys, with those of some roles replaced: for a rotation, or to leave roles out."""
        return ReleaseKeys({**self._signers, **changed})

    def __or__(self, other: "ReleaseKeys") -> "ReleaseKeys":
        """The signers of both, each once."""
        return ReleaseKeys(
            {
                role: tuple({signer.public_hex: signer for signer in (*self[role], *other[role])}.values())
                for role in ROLES
            }
        )

    def save(
        self,
        directory: Path,
        *,
        passphrase: str | None = None,
        plain: Collection[str] = (),
        cost: str = "moderate",
        test: str = "",
    ) -> list[Path]:
        """Write one file per key, for its owner alone to read.

        Args:
            directory: created if it does not exist.
            passphrase: encrypts the private keys; None keeps them in the clear.
            plain: roles whose keys are kept in the clear in any case.
            cost: of the encryption's key, one of `sealed.COSTS`.
            test: a note for each file, for published test keys.

        Returns:
            The files.

        Raises:
            KeysError: a file is there already, or cannot be written.
        """
        written = paths(directory, {role: len(self[role]) for role in ROLES})
        signers = [signer for role in ROLES for signer in self[role]]
        for (path, role), signer in zip(written.items(), signers, strict=True):
            words = None if role in plain else passphrase
            save_one(path, role, signer, passphrase=words, cost=cost, test=test)
        return list(written)


def paths(directory: Path, counts: Mapping[str, int]) -> dict[Path, str]:
    """The files of as many keys, and the role of each.

    Args:
        directory: of the files.
        counts: keys by role.
    """
    return {
        directory / (f"{role}.json" if counts[role] == 1 else f"{role}-{number}.json"): role
        for role in ROLES
        for number in range(1, counts.get(role, 0) + 1)
    }


def save_one(
    path: Path,
    role: str,
    signer: ReleaseSigner,
    *,
    passphrase: str | None = None,
    cost: str = "moderate",
    test: str = "",
    place: Place | None = None,
) -> None:
    """Write one key's file; see `ReleaseKeys.save`.

    Args:
        path: of the file.
        role: what the key signs.
        signer: the key.
        passphrase: encrypts the private key; None keeps it in the clear.
        cost: of the encryption's key, one of `sealed.COSTS`.
        test: a note, for published test keys.
        place: on a token; the file then only names the place.

    Raises:
        KeysError: it is there already, or cannot be written.
    """
    stored = _stored(role, signer, passphrase, cost, test, place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n"
        files.create(path, text, mode=0o644 if test else 0o600)
        if path.stat().st_mode & 0o077 and not test:
            path.unlink()
            raise KeysError(
                f"the file system of {path} lets everybody read it", hint="Keep keys where files have modes."
            )
    except FileExistsError as error:
        raise KeysError(f"{path} is there already", hint="Keys are never overwritten.") from error
    except OSError as error:
        raise KeysError(f"key {path} cannot be written: {error.strerror}") from error


def _stored(
    role: str,
    signer: ReleaseSigner,
    passphrase: str | None,
    cost: str,
    test: str = "",
    place: Place | None = None,
) -> _Stored:
    """What the file of a key holds; see `save_one`."""
    if place is not None:
        return _Stored(_FORMAT, role, signer.public_hex, token=place)
    if not isinstance(signer, NaclSigner):
        raise KeysError(f"the {role} key {signer.public_hex} is on a token and fits in no file")
    if passphrase is not None:
        sealed = seal(signer.seed, passphrase, cost=cost)
        return _Stored(_FORMAT, role, signer.public_hex, sealed=sealed, test=test)
    return _Stored(_FORMAT, role, signer.public_hex, seed=signer.seed.hex(), test=test)


def save_test_keys(directory: Path, seed: str) -> ReleaseKeys:
    """Write deterministic keys; each file says that it is a test key."""
    keys = ReleaseKeys.from_seed(seed)
    keys.save(directory, test=_TEST_NOTE)
    return keys


def add_signature(metadata: Metadata[Any], signer: Signer) -> None:
    """Add a signature to metadata.

    Raises:
        KeysError: the key cannot be used; for example, a token refuses.
    """
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:
        # tuf wraps the exceptions of a signer; raise our own, which tells a person what to do.
        if isinstance(error.__cause__, KeysError):
            raise error.__cause__ from None
        raise


class Secrets(Protocol):
    """The source of passphrases and PINs."""

    @property
    def at_hand(self) -> bool:
        """Whether a passphrase can be had: from a file, a variable or a person."""

    def of(self, path: Path) -> str:
        """The passphrase of an encrypted key."""

    def pin(self, path: Path, place: Place) -> Callable[[], str]:
        """A function that gives the PIN of a key's token, called when the key signs."""


def load(
    directory: Path,
    *,
    secrets: Secrets | None = None,
    only: Iterable[str] = ROLES,
    optional: Collection[str] = (),
) -> ReleaseKeys:
    """Read the keys of a directory.

    Args:
        directory: holds `{role}.json` or `{role}-{name}.json`; not every role must be there.
        secrets: asked for the passphrase of each encrypted file, and for the PIN of each token.
        only: the roles wanted; files of other roles are not opened, and need no passphrase.
        optional: roles whose keys are left out if no passphrase can be had.

    Raises:
        KeysError: there are no keys, a key is damaged or others may read it, or a passphrase is wrong.
    """
    found: dict[str, list[ReleaseSigner]] = {role: [] for role in ROLES}
    try:
        named = [(path, role) for path in sorted(directory.iterdir()) if (role := _role_of(path))]
    except OSError as error:
        raise KeysError(f"no keys can be read from {directory}: {error.strerror}") from error
    for path, role in named:
        if role in only:
            stored = _read(path, role)
            closed = stored.sealed is not None or stored.token is not None
            if not closed or role not in optional or (secrets is not None and secrets.at_hand):
                found[role].append(_open(path, stored, secrets))
    if not named:
        raise KeysError(f"{directory} holds no keys", hint="They are called root-1.json, targets.json ...")
    return ReleaseKeys({role: tuple(signers) for role, signers in found.items()})


def open_one(path: Path, *, secrets: Secrets | None = None) -> tuple[str, ReleaseSigner]:
    """Read one key; its role comes first.

    Args:
        path: of its file.
        secrets: asked for its passphrase.

    Raises:
        KeysError: it is damaged, or others may read it, or the passphrase is wrong.
    """
    role = _role_of(path)
    if not role:
        raise KeysError(
            f"{path} is not called as a key is", hint="They are called root-1.json, targets.json ..."
        )
    return role, _open(path, _read(path, role), secrets)


def replace_one(
    path: Path, role: str, signer: ReleaseSigner, *, passphrase: str | None, cost: str = "moderate"
) -> None:
    """Write the file of a key anew, with another passphrase; at any moment it is the old or the new one.

    Args:
        path: of the file; it is there. A link to it stays a link.
        role: what the key signs.
        signer: the key, as `open_one` has read it.
        passphrase: encrypts the private key; None keeps it in the clear.
        cost: of the encryption's key, one of `sealed.COSTS`.

    Raises:
        KeysError: the key is on a token, or it cannot be written.
    """
    stored = _stored(role, signer, passphrase, cost)
    text = msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n"
    try:
        files.write(path.resolve(), text, mode=0o600)
    except OSError as error:
        raise KeysError(f"key {path} cannot be written: {error.strerror}") from error


def read_public(path: Path, role: str) -> str:
    """The public half of a key, 64 hex digits, from its file, without a passphrase.

    Raises:
        KeysError: the file is damaged, is not a key of this role, or others may read it.
    """
    return public_key(_read(path, role).public).raw.hex()


def is_key_name(name: str, role: str) -> bool:
    """Whether a file with this name is taken for a key of the role."""
    return _role_of(Path(name)) == role


def _role_of(path: Path) -> str | None:
    match = _KEY_NAME.fullmatch(path.name)
    return match[1] if match and match[1] in ROLES else None


def _read(path: Path, role: str) -> _Stored:
    try:
        # Links are followed: secrets are mounted as links, and a person who can make one can place a key,
        # too.
        with open(files.open_plain(path, follow=True), "rb") as handle:
            status = os.fstat(handle.fileno())
            stored = read_json(handle.read(_MAX_BYTES), _Stored)
    except OSError as error:
        raise KeysError(unreadable(f"key {path}", error)) from error
    except (ValueError, TypeError) as error:
        raise KeysError(f"key {path} is damaged: {error}") from error
    if (stored.format, stored.role) != (_FORMAT, role):
        raise KeysError(f"key {path} is damaged: format or role do not fit")
    # As ssh does: others must not read a key of this account. Another owner, such as root, may share with a
    # group.
    forbidden = 0o077 if status.st_uid == os.geteuid() else 0o037
    if status.st_mode & forbidden and not stored.test:
        raise KeysError(
            f"key {path} has mode {stat.S_IMODE(status.st_mode):04o}: others may read it",
            hint=f"Run chmod 600 {path}, and replace the key if it may have been copied.",
        )
    return stored


def _open(path: Path, stored: _Stored, secrets: Secrets | None) -> ReleaseSigner:
    try:
        signer = _signer(path, stored, secrets)
    except (ValueError, TypeError) as error:
        raise KeysError(f"key {path} is damaged: {error}") from error
    if stored.public != signer.public_hex:
        raise KeysError(f"key {path} is damaged: its public half is another key's")
    return signer


def _signer(path: Path, stored: _Stored, secrets: Secrets | None) -> ReleaseSigner:
    if stored.sealed is not None:
        if secrets is None:
            raise KeysError(f"key {path} is encrypted", hint="Give its passphrase.")
        return NaclSigner(SigningKey(_unsealed(path, stored.sealed, secrets.of(path))))
    if stored.token is not None:
        if secrets is None:
            raise KeysError(f"key {path} is on a token", hint="Give its PIN.")
        # Imported here, since only publishing machines have its dependency.
        from phase.release.token import TokenSigner

        return TokenSigner(stored.token, stored.public, secrets.pin(path, stored.token))
    return NaclSigner(SigningKey(bytes.fromhex(stored.seed)))


def _unsealed(path: Path, sealed: Sealed, passphrase: str) -> bytes:
    try:
        return unseal(sealed, passphrase)
    except KeysError as error:
        raise KeysError(f"key {path} cannot be opened: {error.what}") from error
