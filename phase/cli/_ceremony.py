"""`phase release sign|rotate|revoke|discard`: who signs what, and what waits for their signatures."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _publishing, _signing
from phase.errors import PhaseError, printable
from phase.release.keys import ReleaseKeys

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from phase.release.repository import Repository
    from phase.release.roles import Rule


@click.command("sign")
@_signing.directory
@click.option("--export", "target", type=click.Path(path_type=Path), help="Write what is to be signed here.")
@click.option(
    "--import", "source", type=click.Path(exists=True, path_type=Path), help="Take signatures back."
)
@_signing.root
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def sign(
    directory: Path,
    target: Path | None,
    source: Path | None,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Sign what waits for signatures, here or on a machine without a network.

    In a repository: --export DIR writes what is to be signed; --import DIR takes it back, and
    publishes once enough have signed. On a directory so written: shows what is in it, and signs it
    with --keys.
    """
    from phase.release import staging
    from phase.release.repository import Repository

    carried = not (directory / "metadata").exists() and not (directory / staging.PLACE).exists()
    if carried and (target or source):
        raise PhaseError(f"{directory} is not a repository", hint="--export and --import are for one.")
    if carried:
        _sign_carried(directory, root_file, key_directories, passphrase_file)
        return
    # Verified already here: what it is compared with is shown, too.
    shown = Repository.open(directory, root=_publishing.first_root(directory))
    if not shown.staged:
        click.echo(f"nothing waits for signatures in {directory}")
        return
    waiting = _content(shown)
    if target is None:
        shown.cover()
    _show(shown)
    if target is not None:
        staging.save_carried(target, shown.staged, shown.carried())
        click.echo(f"{', '.join(sorted(shown.staged))} to be signed are in {target}")
        return
    keys = _signing.load(key_directories, passphrase_file)
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        _unchanged(repository, waiting)
        if repository.floor != shown.floor:
            raise PhaseError(f"what is published in {directory} has changed meanwhile", hint="Run it again.")
        if source is not None:
            for role in repository.collect(source):
                click.echo(f"{role} in {source} is published already, or given up: left out", err=True)
        _publishing.finish(repository, gap=gap, all_waiting=True)


def _content(repository: "Repository") -> dict[str, bytes]:
    return {role: metadata.signed_bytes for role, metadata in repository.staged.items()}


def _unchanged(repository: "Repository", shown: Mapping[str, bytes]) -> None:
    if _content(repository) != shown:
        raise PhaseError(
            f"what waits in {repository.directory} has changed since it was shown", hint="Run it again."
        )


def _show(repository: "Repository") -> None:
    from phase.release import staging

    before = repository.published()
    for role, metadata in sorted(repository.staged.items()):
        for line in staging.summary(role, metadata, before.get(role)):
            click.echo(printable(line))


def _sign_carried(
    directory: Path, root_file: Path | None, key_directories: tuple[Path, ...], passphrase_file: Path | None
) -> None:
    from phase.cli import _release
    from phase.release import staging
    from phase.release.pinned import Pin, repository_id

    carried = staging.load_carried(directory)
    if root_file is not None and repository_id(_release.read_root(root_file)) != carried.repository:
        raise PhaseError(f"{directory} is from another repository than the one that begins with {root_file}")
    pin = Pin(key_directories, carried.repository, told=root_file is not None)
    for role, metadata in sorted(carried.staged.items()):
        for line in staging.summary(role, metadata, carried.before.get(role)):
            click.echo(printable(line))
    newest = carried.before["root"].version if "root" in carried.before else 0
    known = pin.signed.get("root", 0)
    if known > newest + 1:
        raise PhaseError(
            f"{directory} shows root version {newest} as published, and these keys have signed "
            f"version {known}: newer roots are missing",
            hint="Export it again from the repository as it is published now.",
        )
    if known > newest and "root" not in carried.staged:
        # It may wait elsewhere, or have been given up.
        click.echo(f"these keys have signed root version {known}; {newest} is what is said to be published")
    if not pin.known and key_directories:
        click.echo(f"these keys have not signed for this repository before; it is {carried.repository}")
    keys = _signing.load(key_directories, passphrase_file)
    signed = staging.sign(carried.staged, keys)
    staging.save(directory, carried.staged)
    if signed:
        versions = {role: carried.staged[role].signed.version for role in signed}
        for line in pin.remember(None, versions):
            click.echo(line, err=True)
    click.echo(f"signed {', '.join(signed) or 'nothing: --keys holds no key of these roles'}")


@click.command("rotate")
@_signing.directory
@_signing.publics
@_signing.thresholds
@_signing.yes
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def rotate(
    directory: Path,
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    yes: bool,
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Give roles other keys.

    Each role that a --public names is signed by exactly those keys from then on; the others keep
    theirs. The old keys must sign too: give them all with --keys, or collect them with
    `phase release sign`.
    """
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file)
    public = _signing.read_publics(public_files)
    shown = Repository.open(directory).rules
    rules = _asked(shown, _signing.rules(shown, public, thresholds), yes=yes)
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        _change_keys(repository, shown, rules)
        _publishing.finish(repository, gap=gap, hold=hold)


@click.command("revoke")
@_signing.directory
@click.argument("public")
@_signing.publics
@_signing.thresholds
@_signing.yes
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def revoke(
    directory: Path,
    public: str,
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    yes: bool,
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Trust the key PUBLIC (64 hex digits, or how they begin) no longer.

    A --public takes its place; without one the role keeps its threshold, and must still have
    enough keys.
    """
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file)
    new = _signing.read_publics(public_files)
    shown = Repository.open(directory).rules
    rules = _asked(shown, _signing.rules(_without(shown, public, new), {}, thresholds), yes=yes)
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        _change_keys(repository, shown, rules)
        _publishing.finish(repository, gap=gap, hold=hold)


def _without(before: Mapping[str, "Rule"], public: str, new: Mapping[str, list["Key"]]) -> dict[str, "Rule"]:
    """The rules without a key; new keys take its place where it was."""
    from phase.release import roles

    matching = {
        roles.public(each)
        for rule in before.values()
        for each in rule.keys
        if len(public) >= 8 and roles.public(each).startswith(public)
    }
    if len(matching) != 1:
        raise PhaseError(
            f"{len(matching)} keys here begin with {public[:64]}", hint="See `phase release show`."
        )
    signs = {role for role, rule in before.items() if matching & {roles.public(each) for each in rule.keys}}
    if unused := set(new) - signs:
        raise PhaseError(
            f"the key signs {', '.join(sorted(signs))}; "
            f"a key of {', '.join(sorted(unused))} replaces nothing",
            hint="To give that role other keys, use rotate.",
        )
    found = {}
    for role, rule in before.items():
        left = [each for each in rule.keys if roles.public(each) not in matching]
        replaced = left if len(left) == len(rule.keys) else [*left, *new.get(role, ())]
        found[role] = roles.Rule(tuple(replaced), rule.threshold)
    return found


def _asked(before: Mapping[str, "Rule"], rules: dict[str, "Rule"], *, yes: bool) -> dict[str, "Rule"]:
    """The rules, after a person has agreed to what changes. Nothing is locked while the question is open."""
    from phase.release import roles, staging

    roles.check(rules)
    _publishing.confirm(staging.changes(before, rules), "Give the roles these keys?", yes=yes)
    return rules


def _change_keys(repository: "Repository", shown: Mapping[str, "Rule"], rules: dict[str, "Rule"]) -> None:
    if repository.rules != shown:
        raise PhaseError("who signs what has changed since it was shown", hint="Run it again.")
    repository.rotate(ReleaseKeys({}), rules=rules)


@click.command("discard")
@_signing.directory
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@_signing.yes
def discard(directory: Path, roles: tuple[str, ...], yes: bool) -> None:
    """Give up what waits for signatures: all of it, or each ROLE, such as stable-x86_64.

    New keys and new channels are one change, and are given up together.
    """
    from phase.release.repository import Repository

    shown = Repository.open(directory)
    content = _content(shown)
    if not content:
        click.echo(f"nothing waits for signatures in {directory}")
        return
    given_up = shown.discard(roles or None)
    _publishing.confirm(given_up, "Give these up?", yes=yes)
    with _publishing.opened(directory, (), ReleaseKeys({})) as repository:
        _unchanged(repository, content)
        repository.discard(given_up)
        repository.settle(hold=True)
    click.echo(f"given up: {', '.join(given_up)}")


COMMANDS = (sign, rotate, revoke, discard)
