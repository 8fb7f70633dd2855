"""`phase release key|passphrase|init`: keys are made, and a repository begins with them."""

from dataclasses import dataclass
from pathlib import Path

import click

from phase.cli import _options, _passphrases, _publishing, _release, _signing
from phase.cli._options import PLACE, option
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.release import keys as release_keys
from phase.release.errors import KeysError
from phase.release.keys import COUNTS, LOCAL_COUNTS, ONLINE, ROLES, ReleaseKeys


@dataclass(frozen=True)
class Token:
    """Where on a token a key is, as the options of `phase release key` say it."""

    pkcs11: str | None
    token: str | None
    label: str | None
    existing: bool

    def place(self, file: Path) -> release_keys.Place | None:
        """The place; None for a key in a file."""
        if bool(self.pkcs11) != bool(self.token):
            raise click.UsageError("a key on a token needs both --pkcs11 and --token")
        if not self.pkcs11 or not self.token:
            return None
        return release_keys.Place(self.pkcs11, self.token, self.label or file.stem)


_token = _options.grouped(
    "token",
    Token,
    option(
        "--pkcs11",
        metavar="FILE",
        help="PKCS#11 library of a token: the key is made there, and stays there.",
    ),
    option("--token", once=True, metavar="TEXT", help="Label of the token."),
    option(
        "--object",
        "label",
        once=True,
        metavar="TEXT",
        standard="the file's name",
        help="Label of the key on the token.",
    ),
    option("--existing", once=True, is_flag=True, help="The key is there already: write its public half."),
)
_plain = option(
    "--plain", once=True, is_flag=True, help="Without a passphrase: for keys that sign unattended."
)


@click.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@option("--role", once=True, type=click.Choice(ROLES), required=True, help="What the key will sign.")
@_signing.cost
@_plain
@_signing.passphrase_file
@_token
@_options.as_json
def key(
    file: Path, role: str, cost: str, plain: bool, passphrase_file: Path | None, token: Token, as_json: bool
) -> None:
    """Make one key: FILE, for example root-1.json, and beside it the public half, root-1.pub.

    With --pkcs11 and --token the key is on a hardware token; FILE says where. Its passphrase is the PIN.
    """
    if not release_keys.is_key_name(file.name, role):
        raise click.UsageError(f"call it {role}.json or {role}-NAME.json: the name says what it signs")
    place = token.place(file)
    if token.existing and place is None:
        _made(file, role, release_keys.read_public(file, role), Out(as_json))
        return
    if not token.existing and not file.exists() and file.with_suffix(".pub").exists():
        raise PhaseError(f"{file.with_suffix('.pub')} is there already", hint="Keys are never overwritten.")
    signer: release_keys.ReleaseSigner
    if place is not None:
        signer = _signing.on_token(file, role, place, passphrase_file, token.existing)
    else:
        words = _new_words(file, passphrase_file, plain=plain)
        signer = ReleaseKeys.generate({role: 1})[role][0]
        release_keys.save_one(file, role, signer, passphrase=words, cost=cost)
    _made(file, role, signer.public_hex, Out(as_json))


def _made(file: Path, role: str, public: str, out: Out) -> None:
    from phase.cli.facts import Key

    _signing.write_public(file.with_suffix(".pub"), role, public)
    out.done = True
    out.line(f"{role} {public}")
    out.facts(Key(role=role, public=public, file=str(file)))


def _new_words(file: Path, passphrase_file: Path | None, *, plain: bool) -> str | None:
    if plain and passphrase_file:
        raise click.UsageError("--plain makes a key without a passphrase; leave --passphrase-file out")
    return _signing.new_passphrase(file, passphrase_file, plain=plain)


@click.command("passphrase")
@click.argument("file", type=_options.FILE)
@option(
    "--new-passphrase-file",
    once=True,
    type=_options.FILE,
    metavar="FILE",
    standard="it is asked for",
    help="File with the new passphrase.",
)
@_signing.cost
@_plain
@_signing.passphrase_file
@_options.as_json
def passphrase(
    file: Path,
    new_passphrase_file: Path | None,
    cost: str,
    plain: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Change the passphrase of the key in FILE; the key stays the same.

    Copies of the file keep the old passphrase: destroy them, or replace the key if it may be known.
    """
    from phase.cli.facts import Key

    if plain and new_passphrase_file:
        raise click.UsageError("--plain takes the passphrase away; leave --new-passphrase-file out")
    role, stored = release_keys.open_one(file, secrets=_passphrases.Passphrases.of_command(passphrase_file))
    new = None if plain else _passphrases.new_of(file, new_passphrase_file)
    release_keys.replace_one(file, role, stored, passphrase=new, cost=cost)
    out = Out(as_json)
    out.done = True
    out.line(f"{role} {stored.public_hex} has {'no' if plain else 'a new'} passphrase")
    out.facts(Key(role=role, public=stored.public_hex, file=str(file)))


@click.command("init")
@_signing.directory
@option(
    "--new-keys",
    "made",
    once=True,
    type=PLACE,
    metavar="DIRECTORY",
    help="Make a key for every role here; those that an interrupted run has left are used.",
)
@option(
    "--root-keys",
    once=True,
    type=click.IntRange(1, 16),
    default=COUNTS["root"],
    metavar="N",
    help="How many root keys to make.",
)
@_signing.cost
@option("--plain", once=True, is_flag=True, help="Without a passphrase on any of the new keys.")
@_signing.keys
@_signing.publics
@_signing.thresholds
@_signing.passphrase_file
@_options.as_json
def init(
    directory: Path,
    made: Path | None,
    root_keys: int,
    cost: str,
    plain: bool,
    key_directories: tuple[Path, ...],
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Begin a repository in DIRECTORY.

    With --new-keys this makes the keys too. In a ceremony each holder has made one with
    `phase release key`: give the public halves with --public, and with --keys those that
    sign here; the others sign later, see `phase release sign`.
    """
    from phase.release import roles
    from phase.release.pinned import Pin, repository_id
    from phase.release.repository import Repository, begun

    if begun(directory):
        raise PhaseError(
            f"{directory} holds a repository already",
            hint="Publish into it with `phase release add`, or choose another directory for another one.",
        )
    out = Out(as_json)
    at_hand = _signing.load(key_directories, passphrase_file)
    if made is not None:
        at_hand |= _new_keys(made, root_keys, _Sealing(passphrase_file, cost, plain), out)
    public = _signing.read_publics(public_files)
    base = {role: rule for role, rule in roles.rules(at_hand).items() if rule.keys}
    rules = _signing.rules(base, public, thresholds)
    remembering = [*key_directories, *([made] if made is not None else [])]
    with _signing.locked(directory):
        repository = Repository.create(directory, keys=at_hand, rules=rules, now=_release.now())
        _publishing.finish(repository, out)
        pin = Pin(remembering, repository_id(repository.first_root()), told=True)
        _publishing.remember(pin, repository)


@dataclass(frozen=True)
class _Sealing:
    """How new keys are kept."""

    passphrase_file: Path | None
    cost: str
    plain: bool


def _new_keys(directory: Path, root_keys: int, sealing: _Sealing, out: Out) -> ReleaseKeys:
    """A key for every role; those that an earlier `init` has made before it was interrupted are taken.

    Raises:
        KeysError: the directory holds keys of a repository, or others than this would make.
    """
    wanted = release_keys.paths(directory, {**LOCAL_COUNTS, "root": root_keys})
    there = {path: role for path, role in wanted.items() if path.exists()}
    others = [path for path in sorted(directory.glob("*.json")) if path not in wanted]
    if others:
        # `pinned.json` among them: the keys here have signed for a repository.
        raise KeysError(f"{others[0]} is there already", hint="Choose another directory for new keys.")
    words = _signing.new_passphrase(directory, sealing.passphrase_file, plain=sealing.plain)
    if not sealing.plain:
        out.line(f"{', '.join(ONLINE)}: no passphrase, they sign unattended")
    made = ReleaseKeys({})
    if there:
        note(f"taken up: {len(there)} keys that are in {directory} already")
        made |= _signing.load([directory], sealing.passphrase_file)
    for path, role in wanted.items():
        if path not in there:
            new = ReleaseKeys.generate({role: 1})
            sealed = None if role in ONLINE else words
            release_keys.save_one(path, role, new[role][0], passphrase=sealed, cost=sealing.cost)
            made |= new
        public = release_keys.read_public(path, role)
        _signing.write_public(path.with_suffix(".pub"), role, public)
    return made


COMMANDS = (key, passphrase, init)
