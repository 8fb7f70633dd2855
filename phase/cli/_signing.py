"""What the commands of `phase release` share: keys, passphrases, one publisher at a time."""

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from phase.cli import _release
from phase.cli._passphrases import ENVIRONMENT, Passphrases, note_pin_files
from phase.errors import printable
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
keys = click.option(
    "--keys",
    "key_directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory with private keys; repeat for more.",
)
_pin_files = click.option(
    "--pin-file",
    multiple=True,
    metavar="TOKEN=FILE",
    expose_value=False,
    callback=note_pin_files,
    help="File with the PIN of the token of this label; repeat for more.",
)
_passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"File with the passphrase; else ${ENVIRONMENT}, else asked for.",
)
cost = click.option(
    "--cost",
    type=click.Choice(list(COSTS)),
    default="moderate",
    show_default=True,
    envvar="PHASE_RELEASE_COST",
    help="Memory and time it takes to try one passphrase.",
)
publics = click.option(
    "--public",
    "public_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a public key, as `phase release key` wrote it; repeat for more.",
)
thresholds = click.option(
    "--threshold", "thresholds", multiple=True, metavar="ROLE=K", help="How many keys of ROLE must sign."
)
root = click.option(
    "--root",
    "root_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The repository's first root, as your images hold it, where --keys have not signed for it before.",
)
hold = click.option(
    "--stage",
    "hold",
    is_flag=True,
    help="Publish nothing yet, also if all have signed: `phase release sign` publishes it.",
)
yes = click.option("--yes", is_flag=True, help="Do not ask.")
gap = click.option(
    "--gap",
    is_flag=True,
    help="Publish without the signatures of lost keys: a client that asks in that moment asks again.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


def passphrase_file(command: _Command) -> _Command:
    """The options that say where passphrases and PINs are; `load` finds them all."""
    return _passphrase_file(_pin_files(command))


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


def load_for_refresh(directory: Path, key_directories: Iterable[Path], file: Path | None) -> ReleaseKeys:
    """The keys that a refresh needs now; those of releases only if one of them is half over."""
    from phase.release.repository import Repository

    due = Repository.open(directory, resume=False, now=_release.now()).due()
    only = [*ONLINE, *(["release"] if any(kind(role) == "release" for role in due) else [])]
    return load(key_directories, file, only, optional=["release"])


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
        if path.is_file() and path.read_bytes() == data:
            return
        raise KeysError(f"{path} is there already, and is another key's", hint="Move it away.") from error
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from error


def read_publics(paths: Iterable[Path]) -> dict[str, list[Any]]:
    """Public keys by role.

    Raises:
        KeysError: a file is no public key.
    """
    found: dict[str, list[Any]] = {}
    for path in paths:
        with path.open("rb") as handle:
            words = handle.read(_MAX_PUBLIC).decode("ascii", "replace").split()
        if len(words) != 3 or words[0] != _PUBLIC or words[1] not in ROLES:
            raise KeysError(
                f"{path} is not a public key of a release", hint="phase release key writes them."
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
    return lock.repository(directory, tell)


def tell(line: str) -> None:
    """Say something beside the result of a command, on stderr."""
    click.echo(printable(line), err=True)
