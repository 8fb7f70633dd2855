"""`phase release sign|rotate|revoke|discard`: who signs what, and what waits for their signatures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _options, _publishing, _release, _signing
from phase.cli._signing import NewKeys, Signer
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.release.keys import ONLINE, ReleaseKeys

if TYPE_CHECKING:
    from phase.release.repository import Repository
    from phase.release.roles import Rule


@click.command("sign")
@_signing.directory
@_options.option(
    "--export",
    "target",
    once=True,
    type=_options.PLACE,
    metavar="DIRECTORY",
    help="Write what is to be signed.",
)
@_options.option(
    "--import",
    "source",
    once=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="DIRECTORY",
    help="Take signatures back.",
)
@_signing.signer
@_signing.gap
@_options.as_json
def sign(
    directory: Path, target: Path | None, source: Path | None, signer: Signer, gap: bool, as_json: bool
) -> None:
    """Sign what waits for signatures, here or on a machine without a network.

    In a repository: --export DIRECTORY writes what is to be signed; --import DIRECTORY takes it back, and
    publishes once enough have signed. On a directory so written: shows what is in it, and signs it
    with --keys.
    """
    from phase.release import staging
    from phase.release.repository import Repository

    out = Out(as_json)
    carried = not (directory / "metadata").exists() and not (directory / staging.PLACE).exists()
    if carried and (target or source):
        raise PhaseError(f"{directory} is not a repository", hint="--export and --import are for one.")
    if carried:
        _sign_carried(directory, signer, out)
        return
    # Verified already here: what it is compared with is shown, too.
    shown = Repository.open(directory, root=_publishing.first_root(directory))
    if not shown.staged:
        out.line(f"nothing waits for signatures in {directory}")
        _publishing.tell(shown, out)
        return
    waiting = _content(shown)
    if target is None:
        shown.cover()
    _show(shown, out)
    if target is not None:
        staging.save_carried(target, shown.staged, shown.carried())
        out.done = True
        out.line(f"{target} holds what is to be signed: {', '.join(sorted(shown.staged))}")
        _publishing.tell(shown, out)
        return
    keys = signer.load()
    with _publishing.opened(directory, signer, keys) as repository:
        _unchanged(repository, waiting)
        if repository.floor != shown.floor:
            raise PhaseError(f"what is published in {directory} has changed meanwhile", hint="Run it again.")
        if source is not None:
            for role in repository.collect(source):
                note(f"{role} in {source} is published already, or given up: left out")
        _publishing.finish(repository, out, gap=gap, all_waiting=True)


def _content(repository: "Repository") -> dict[str, bytes]:
    return {role: metadata.signed_bytes for role, metadata in repository.staged.items()}


def _unchanged(repository: "Repository", shown: Mapping[str, bytes]) -> None:
    if _content(repository) != shown:
        raise PhaseError(
            f"what waits in {repository.directory} has changed since it was shown", hint="Run it again."
        )


def _show(repository: "Repository", out: Out) -> None:
    from phase.release import staging

    before = repository.published()
    for role, metadata in sorted(repository.staged.items()):
        for line in staging.summary(role, metadata, before.get(role)):
            out.show(line)


def _sign_carried(directory: Path, signer: Signer, out: Out) -> None:
    from phase.cli.facts import Carried
    from phase.release import staging
    from phase.release.pinned import Pin, repository_id

    carried, root_file = staging.load_carried(directory), signer.root_file
    if root_file is not None and repository_id(_release.read_root(root_file)) != carried.repository:
        raise PhaseError(f"{directory} is from another repository than the one that begins with {root_file}")
    pin = Pin(signer.key_directories, carried.repository, told=root_file is not None)
    for role, metadata in sorted(carried.staged.items()):
        for line in staging.summary(role, metadata, carried.before.get(role)):
            out.show(line)
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
        out.show(f"these keys have signed root version {known}; {newest} is what is said to be published")
    if not pin.known and signer.key_directories:
        out.show(f"these keys have not signed for this repository before; its id is {carried.repository}")
    signed, strange = staging.sign(carried, signer.load())
    for role, public in strange:
        note(f"{role}: the key {public} is not one of its keys, and does not sign it")
    if strange and not signed:
        raise PhaseError(
            "nothing is signed: none of --keys is a key of these roles",
            hint="Each key that signs is shown above, or by `phase release status` in the repository.",
        )
    staging.save(directory, carried.staged)
    out.done = True
    if signed:
        versions = {role: carried.staged[role].signed.version for role in signed}
        for line in pin.remember(None, versions):
            note(line)
    out.line(f"signed {', '.join(signed) or 'nothing: --keys holds no key of these roles'}")
    out.facts(Carried(repository=carried.repository, signed=list(signed)))


@click.command("rotate")
@_signing.directory
@_signing.new_keys
@_signing.hold
@_signing.signer
@_signing.gap
@_options.as_json
def rotate(directory: Path, new_keys: NewKeys, hold: bool, signer: Signer, gap: bool, as_json: bool) -> None:
    """Give roles other keys.

    Each role that a --public names is signed by exactly those keys from then on; the others keep
    theirs. The old keys must sign too: give them all with --keys, or collect them with
    `phase release sign`.
    """
    out, keys = Out(as_json), signer.load()
    public = _signing.read_publics(new_keys.public_files)
    with _agreed(
        directory,
        signer,
        keys,
        new_keys,
        out,
        lambda shown: _signing.rules(shown, public, new_keys.thresholds),
    ) as repository:
        _publishing.finish(repository, out, gap=gap, hold=hold)


@click.command("revoke")
@_signing.directory
@click.argument("public")
@_signing.new_keys
@_signing.hold
@_signing.signer
@_signing.gap
@_options.as_json
def revoke(
    directory: Path, public: str, new_keys: NewKeys, hold: bool, signer: Signer, gap: bool, as_json: bool
) -> None:
    """Trust the key PUBLIC (64 hex digits, or how they begin) no longer.

    A --public takes its place; without one the role keeps its threshold, and must still have
    enough keys.
    """
    from phase.release import roles

    out, keys = Out(as_json), signer.load()
    new = _signing.read_publics(new_keys.public_files)

    def rules(shown: dict[str, "Rule"]) -> dict[str, "Rule"]:
        return _signing.rules(roles.without(shown, public, new), {}, new_keys.thresholds)

    with _agreed(directory, signer, keys, new_keys, out, rules) as repository:
        _publishing.finish(repository, out, gap=gap, hold=hold)


@contextmanager
def _agreed(
    directory: Path,
    signer: Signer,
    keys: ReleaseKeys,
    new_keys: NewKeys,
    out: Out,
    change: Callable[[dict[str, "Rule"]], dict[str, "Rule"]],
) -> Iterator["Repository"]:
    """A repository, locked, whose rules have changed as a person has agreed.

    Nothing is locked while the question is open.
    """
    from phase.release import roles, staging
    from phase.release.repository import Repository

    shown = Repository.open(directory).rules
    rules = change(dict(shown))
    roles.check(rules)
    _publishing.confirm(staging.changes(shown, rules), "Give the roles these keys?", out, yes=new_keys.yes)
    with _publishing.opened(directory, signer, keys) as repository:
        if repository.rules != shown:
            raise PhaseError("who signs what has changed since it was shown", hint="Run it again.")
        repository.rotate(ReleaseKeys({}), rules=rules)
        yield repository
    for role in ONLINE:
        if set(shown[role].keys) != set(rules[role].keys):
            note(f"{role} gets other keys: once they are published, `phase release refresh` needs them")


@click.command("discard")
@_signing.directory
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@_signing.yes
@_options.as_json
def discard(directory: Path, roles: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Give up what waits for signatures: all of it, or each ROLE, such as stable-x86_64.

    New keys and new channels are one change, and are given up together.
    """
    from phase.release.repository import Repository

    out, shown = Out(as_json), Repository.open(directory)
    content = _content(shown)
    if not content:
        out.line(f"nothing waits for signatures in {directory}")
        _publishing.tell(shown, out)
        return
    given_up = shown.discard(roles or None)
    _publishing.confirm(given_up, "Give these up?", out, yes=yes)
    with _publishing.opened(directory, Signer(), ReleaseKeys({})) as repository:
        _unchanged(repository, content)
        repository.discard(given_up)
        repository.settle(hold=True)
        out.done = True
        out.line(f"given up: {', '.join(given_up)}")
        _publishing.tell(repository, out, discarded=given_up)


COMMANDS = (sign, rotate, revoke, discard)
