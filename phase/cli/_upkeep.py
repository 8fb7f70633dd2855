"""`phase release refresh|renew|status|show|prune|restore`: what keeps a repository believed for years."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _options, _publishing, _release, _signing
from phase.cli._signing import Signer
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.release.keys import ROLES, ReleaseKeys

if TYPE_CHECKING:
    from phase.cli.facts import Release, Role, Shown
    from phase.release.repository import Repository
    from phase.release.status import RoleStatus


@click.command("refresh")
@_signing.directory
@_options.option(
    "--clock-was-ahead",
    once=True,
    is_flag=True,
    help="What is published was signed by a clock that was ahead: sign what ends sooner.",
)
@_signing.signer
@_options.as_json
def refresh(directory: Path, clock_was_ahead: bool, signer: Signer, as_json: bool) -> None:
    """Sign the timestamp anew, and what else expires soon and --keys can sign. For cron.

    Ends with 3 if all that is done, but something expires soon that these keys cannot sign.
    """
    out, keys = Out(as_json), _signing.load_for_refresh(directory, signer)
    # What waits for signatures goes on waiting.
    with _publishing.opened(directory, signer, keys, resume=False) as repository:
        repository.clock_was_ahead = clock_was_ahead
        if clock_was_ahead:
            repository.shorten()
        renewed = [role for role in repository.renew() if role != "timestamp"]
        done = repository.publish()
        out.done = True
        urgent = _publishing.warn(repository, _release.now())
        for line in (*done.notes, *(_too_long(repository) if clock_was_ahead else ())):
            note(line)
        if renewed:
            out.line(f"renewed {', '.join(renewed)}")
        out.line(f"timestamp until {repository.timestamp_expires:%Y-%m-%d %H:%M} UTC")
        _publishing.tell(repository, out, published=done.roles, renewed=renewed, urgent=urgent)
    if urgent:
        sys.exit(_publishing.ATTENTION)


def _too_long(repository: "Repository") -> Iterator[str]:
    """What else was signed by a clock that was ahead: its keys are elsewhere, so it is only told."""
    from phase.release import roles
    from phase.release.lifetimes import Expiry

    usual = Expiry()
    for role, signed in repository.published().items():
        days = (signed.expires - _release.now()).total_seconds() / 86_400
        if role not in roles.ONLINE and days > roles.lifetime(role, signed, usual) + 1:
            yield (
                f"{role} holds until {signed.expires:%Y-%m-%d}, longer than it should: "
                f"run `phase release renew {repository.directory} {role}` with a key of {roles.kind(role)}"
            )


@click.command("renew")
@_signing.directory
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@_signing.hold
@_signing.signer
@_options.as_json
def renew(directory: Path, roles: tuple[str, ...], hold: bool, signer: Signer, as_json: bool) -> None:
    """Sign roles anew, as they are: each ROLE (root, targets, stable-x86_64), or what is half over.

    A named role that --keys cannot sign alone waits for the other signatures, see `phase release sign`.
    """
    from phase.release.roles import ONLINE

    out, keys = Out(as_json), signer.load()
    with _publishing.opened(directory, signer, keys) as repository:
        renewed = sorted(set(repository.renew(roles or None)) - set(ONLINE))
        if renewed:
            _publishing.finish(repository, out, hold=hold, renewed=renewed)
            urgent = _publishing.warn(repository, _release.now())
        else:
            urgent = _publishing.warn(repository, _release.now())
            out.line("nothing expires soon that these keys can sign")
            _publishing.tell(repository, out, urgent=urgent)
    if urgent:
        sys.exit(_publishing.ATTENTION)


@click.command("status")
@_signing.directory
@_release.root_option(otherwise="the repository's own first root")
@_options.as_json
def status(directory: Path, root_file: Path | None, as_json: bool) -> None:
    """Say what must be signed, by whom and until when. For monitoring.

    Ends with 0 if all holds, with 3 if something expires soon or has expired, with 1 if a machine would
    refuse the signatures.
    """
    from phase.cli.facts import Status
    from phase.release import status as states
    from phase.release.repository import Repository

    out, repository = Out(as_json), Repository.open(directory, root=_trusted(directory, root_file))
    found = states.published(repository, _release.now())
    urgent = [each for each in found if each.state in states.URGENT]
    out.facts(Status(roles=[_facts(each) for each in found], waiting=_publishing.waiting(repository)))
    for each in found:
        many = f"{each.threshold} of {len(each.keys)} sign"
        name = f"{each.role} {each.release}".strip()
        out.line(f"{name}: {each.state}, until {each.expires:%Y-%m-%d %H:%M} UTC, {many}")
    _tell_waiting(repository, out)
    for each in urgent:
        out.line(_publishing.urgent_line(each))
    if urgent:
        sys.exit(_publishing.ATTENTION)


def _trusted(directory: Path, root_file: Path | None) -> bytes | None:
    if root_file is not None:
        return _release.read_root(root_file)
    return _publishing.first_root(directory)


def _facts(each: "RoleStatus") -> "Role":
    from phase.cli.facts import Role, utc

    return Role(
        role=each.role,
        version=each.version,
        release=each.release,
        state=str(each.state),
        expires=utc(each.expires),
        renew_by=utc(each.renew_by),
        threshold=each.threshold,
        keys=list(each.keys),
    )


def _tell_waiting(repository: "Repository", out: Out) -> None:
    for each in _publishing.waiting(repository):
        counts = [f"{one.by} {one.signed}/{one.threshold}" for one in each.missing]
        what = f"waits for signatures: {', '.join(counts)}" if counts else "waits to be published"
        out.line(f"{each.role}, version {each.version}, {what}")


@click.command("show")
@_signing.directory
@_options.as_json
def show(directory: Path, as_json: bool) -> None:
    """Say what is published, who signs it, and what waits for signatures."""
    from phase.release import staging
    from phase.release.repository import Repository

    out, repository = Out(as_json), Repository.open(directory)
    facts = _shown(repository)
    out.facts(facts)
    if not facts.published:
        out.line("not published yet")
    for role, rule in facts.roles.items():
        out.line(f"{role}: {rule.threshold} of {len(rule.keys)} sign")
        for public in rule.keys:
            out.line(f"  {public}")
    for each in facts.releases:
        names = ", ".join(f"{name} {length}" for name, length in each.artifacts.items())
        out.line(f"{each.channel}/{each.arch} {each.release} (version {each.version}): {names}")
    for role, when in facts.expires.items():
        out.line(f"{role} holds until {when}")
    _tell_waiting(repository, out)
    before = repository.published()
    for role, metadata in sorted(repository.staged.items()):
        for line in staging.summary(role, metadata, before.get(role)):
            out.line(f"  {line}")


def _shown(repository: "Repository") -> "Shown":
    from phase.cli.facts import Shown, Signers, utc
    from phase.release import roles

    rules = repository.published_rules()
    return Shown(
        published=bool(rules),
        roles={
            role: Signers(threshold=rule.threshold, keys=[roles.public(key) for key in rule.keys])
            for role, rule in rules.items()
        },
        expires={role: utc(signed.expires) for role, signed in repository.published().items()},
        releases=[_release_facts(repository, *pair) for pair in repository.present()],
        waiting=_publishing.waiting(repository),
    )


def _release_facts(repository: "Repository", channel: str, arch: str) -> "Release":
    from phase.cli.facts import Release

    found = repository.manifest(channel, arch)
    return Release(
        channel=channel,
        arch=arch,
        release=found.release,
        version=found.version,
        cmdline=found.cmdline,
        artifacts={name: each.length for name, each in sorted(found.artifacts.items())},
    )


@click.command("prune")
@_signing.directory
@_options.as_json
def prune(directory: Path, as_json: bool) -> None:
    """Remove what no machine can ask for any more: old metadata, and the files of releases long replaced."""
    from phase.cli.facts import Pruned
    from phase.release import prune as pruning

    out = Out(as_json)
    with _publishing.opened(directory, Signer(), ReleaseKeys({})) as repository:
        done = pruning.prune(repository, waiting=repository.waiting_blobs())
    out.done = True
    out.line(f"removed {done.metadata} metadata files and {done.blobs} artifacts")
    out.facts(Pruned(metadata=done.metadata, artifacts=done.blobs))


@click.command("restore")
@_signing.directory
@_options.option(
    "--ahead",
    once=True,
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Go so many versions ahead, where --keys do not remember what was published last.",
)
@_signing.signer
@_options.as_json
def restore(directory: Path, ahead: int | None, signer: Signer, as_json: bool) -> None:
    """Publish a repository that came from a backup: with versions above what was published since.

    Machines refuse versions below those they have seen. The directory of keys remembers them; where it came
    from the same backup, --ahead says how many publications may have been lost. The releases are those of
    the backup: add the newer ones again.
    """
    out, keys = Out(as_json), signer.load(ROLES[1:])
    with _publishing.opened(directory, signer, keys, resume=False, restore=True) as repository:
        raised = repository.restore(ahead or 0)
        if not raised:
            raise PhaseError(
                f"{directory} is not older than what these keys remember",
                hint="If they come from the same backup, give --ahead.",
            )
        repository.publish()
        out.done = True
        out.line(f"published again, above what machines may have seen: {', '.join(raised)}")
        out.line(f"timestamp until {repository.timestamp_expires:%Y-%m-%d %H:%M} UTC")
        _publishing.tell(repository, out, published=raised)


COMMANDS: Iterable[click.Command] = (refresh, renew, status, show, prune, restore)
