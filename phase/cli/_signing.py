"""What the commands of `phase release` share: keys, passphrases, one publisher at a time."""

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from phase.cli import _given, _options, _release
from phase.cli._passphrases import ENVIRONMENT, Passphrases, note_pin_files
from phase.cli._tell import note
from phase.release import keys as release_keys
from phase.release import lock
from phase.release.errors import KeysError
from phase.release.keys import ONLINE, ROLES, ReleaseKeys
from phase.release.roles import kind
from phase.release.sealed import COSTS

if TYPE_CHECKING:
    from phase.release.roles import Rule

_MAX_PUBLIC = 1024
_Command = TypeVar("_Command", bound=Callable[..., object])
_PUBLIC = "phase-release-public-v1"

directory = click.argument("directory", type=click.Path(file_okay=False, path_type=Path))


@dataclass(frozen=True)
class Signer:
    """Who signs: the options that say where keys are, and for which repository they sign.

    Attributes:
        key_directories: hold private keys, and remember what they have signed for.
        passphrase_file: holds the passphrase, if it is not elsewhere.
        root_file: the repository's first root, where the keys do not remember it.
    """

    key_directories: tuple[Path, ...] = ()
    passphrase_file: Path | None = None
    root_file: Path | None = None

    def load(self, only: Iterable[str] = ROLES) -> ReleaseKeys:
        """The keys, of some roles. Call it before a repository is locked: it asks for passphrases."""
        return load(self.key_directories, self.passphrase_file, only)


@dataclass(frozen=True)
class NewKeys:
    """What is to become of who signs what.

    Attributes:
        public_files: the new public keys.
        thresholds: `ROLE=K` each.
        yes: do not ask.
    """

    public_files: tuple[Path, ...]
    thresholds: tuple[str, ...]
    yes: bool


keys = _options.option(
    "--keys",
    "key_directories",
    multiple=True,
    type=_options.DIRECTORY,
    metavar="DIRECTORY",
    help="Directory with private keys; repeat for more.",
)
_pin_files = _options.option(
    "--pin-file",
    multiple=True,
    metavar="TOKEN=FILE",
    expose_value=False,
    callback=note_pin_files,
    help="File with the PIN of the token of this label; repeat for more.",
)
_passphrase_file = _options.option(
    "--passphrase-file",
    type=_options.FILE,
    metavar="FILE",
    standard=f"${ENVIRONMENT}, else it is asked for",
    help="File with the passphrase.",
)
cost = _options.option(
    "--cost",
    type=click.Choice(list(COSTS)),
    default="moderate",
    help="Memory and time it takes to try one passphrase.",
)
publics = _options.option(
    "--public",
    "public_files",
    once=True,
    multiple=True,
    type=_options.FILE,
    metavar="FILE",
    help="File with a public key, as `phase release key` wrote it; repeat for more.",
)
thresholds = _options.option(
    "--threshold",
    "thresholds",
    once=True,
    multiple=True,
    metavar="ROLE=K",
    standard="more than half of its keys",
    help="How many keys of ROLE must sign; repeat for more.",
)
hold = _options.option(
    "--stage",
    "hold",
    once=True,
    is_flag=True,
    help="Publish nothing yet, also if all have signed: `phase release sign` publishes it.",
)
yes = _options.option("--yes", once=True, is_flag=True, help="Do not ask.")
gap = _options.option(
    "--gap",
    once=True,
    is_flag=True,
    help="Publish without the signatures of lost keys: a client that asks in that moment asks again.",
)


def passphrase_file(command: _Command) -> _Command:
    """The options that say where passphrases and PINs are; `load` finds them all."""
    return cast(_Command, _passphrase_file(_pin_files(command)))


signer = _options.grouped(
    "signer",
    Signer,
    _release.root_option(otherwise="the one that --keys have signed for before"),
    keys,
    passphrase_file,
)
new_keys = _options.grouped("new_keys", NewKeys, publics, thresholds, yes)


def load(
    directories: Iterable[Path],
    file: Path | None,
    only: Iterable[str] = ROLES,
    *,
    optional: Collection[str] = (),
) -> ReleaseKeys:
    """The keys of several directories. Call it before `locked`: it asks for passphrases.

    Args:
        directories: hold them.
        file: holds the passphrase.
        only: the roles wanted.
        optional: roles whose keys are left out where no passphrase can be had.
    """
    secrets = Passphrases.of_command(file)
    found = ReleaseKeys({})
    for each in directories:
        found |= release_keys.load(each, secrets=secrets, only=only, optional=optional)
    return found


def load_for_refresh(directory: Path, signer: Signer) -> ReleaseKeys:
    """The keys that a refresh needs now; those of releases only if one of them is half over."""
    from phase.release.repository import Repository

    due = Repository.open(directory, resume=False, now=_release.now()).due()
    only = [*ONLINE, *(["release"] if any(kind(role) == "release" for role in due) else [])]
    return load(signer.key_directories, signer.passphrase_file, only, optional=["release"])


def new_passphrase(path: Path, file: Path | None, *, plain: bool) -> str | None:
    """The passphrase of keys that are made; None keeps them in the clear."""
    return None if plain else Passphrases.of_command(file).new(path)


def on_token(
    path: Path, role: str, place: release_keys.Place, file: Path | None, existing: bool
) -> release_keys.ReleaseSigner:
    """Make a key on a token, or find it there, and write the file that says where it is."""
    from phase.release import token

    if path.exists():
        raise KeysError(f"{path} is there already", hint="Keys are never overwritten.")
    pin = Passphrases.of_command(file).pin(path, place)
    public = token.find(place, pin()) if existing else token.make(place, pin())
    signer = token.TokenSigner(place, public, pin)
    release_keys.save_one(path, role, signer, place=place)
    return signer


def write_public(path: Path, role: str, public: str) -> None:
    """Write a public key beside its private one.

    Raises:
        KeysError: it cannot be written, or another key's is there.
    """
    from phase import files

    data = f"{_PUBLIC} {role} {public}\n".encode()
    try:
        files.create(path, data)
    except FileExistsError as error:
        if path.is_file() and _given.read(path, "the public key", _MAX_PUBLIC, kind=KeysError) == data:
            return
        raise KeysError(f"{path} is there already, and is another key's", hint="Move it away.") from error
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from error


def read_publics(paths: Iterable[Path]) -> dict[str, list[Any]]:
    """Public keys by role.

    Raises:
        KeysError: a file is not a public key.
    """
    found: dict[str, list[Any]] = {}
    for path in paths:
        data = _given.read(path, "the public key", _MAX_PUBLIC, kind=KeysError)
        words = data.decode("ascii", "replace").split()
        if len(words) != 3 or words[0] != _PUBLIC or words[1] not in ROLES:
            raise KeysError(
                f"{path} is not a public key of a release", hint="`phase release key` writes them."
            )
        found.setdefault(words[1], []).append(release_keys.public_key(words[2]))
    return found


def rules(base: dict[str, "Rule"], public: dict[str, list[Any]], wanted: Iterable[str]) -> dict[str, "Rule"]:
    """The rules of roles, after some of them were given other keys or thresholds."""
    from phase.release.roles import Rule

    found = dict(base)
    for role, several in public.items():
        unique = tuple({key.keyid: key for key in several}.values())
        found[role] = Rule(unique, len(unique) // 2 + 1)
    for text in wanted:
        role, _, number = text.partition("=")
        if role not in ROLES or not number.isdecimal():
            raise click.UsageError(f"--threshold {text!r} is not ROLE=K with a role of {', '.join(ROLES)}")
        found[role] = Rule(found[role].keys if role in found else (), int(number))
    return found


def locked(directory: Path) -> AbstractContextManager[None]:
    """Let one process at a time sign in a repository. Load keys before: loading asks for passphrases.

    Raises:
        RepositoryError: this account cannot write to all of it, or another process does not leave it.
    """
    return lock.repository(directory, note)
