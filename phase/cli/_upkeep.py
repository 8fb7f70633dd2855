"""`phase release refresh|renew|status|show|prune|restore`: what keeps a repository believed for years."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase.cli import _publishing, _release, _signing
from phase.errors import PhaseError
from phase.release.keys import ROLES, ReleaseKeys

if TYPE_CHECKING:
    from phase.release.repository import Repository
    from phase.release.status import RoleStatus


@click.command("refresh")
@_signing.directory
@click.option(
    "--clock-was-ahead",
    is_flag=True,
    help="The published timestamp was signed by a clock that was ahead: sign one that ends sooner.",
)
@_signing.root
@_signing.keys
@_signing.passphrase_file
def refresh(
    directory: Path,
    clock_was_ahead: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Sign the timestamp anew, and what else expires soon and --keys can sign. For cron.

    Ends with 3 if all that is done, but something expires soon that these keys cannot sign.
    """
    keys = _signing.load_for_refresh(directory, key_directories, passphrase_file)
    # What waits for signatures goes on waiting.
    with _publishing.opened(directory, key_directories, keys, root_file, resume=False) as repository:
        repository.clock_was_ahead = clock_was_ahead
        if clock_was_ahead:
            repository.shorten()
        renewed = [role for role in repository.renew() if role != "timestamp"]
        done = repository.publish()
        urgent = _publishing.warn(repository, _release.now())
    if renewed:
        click.echo(f"renewed {', '.join(renewed)}")
    for note in done.notes:
        click.echo(note, err=True)
    click.echo(f"timestamp until {repository.timestamp_expires:%Y-%m-%d %H:%M} UTC")
    if urgent:
        sys.exit(_publishing.ATTENTION)


@click.command("renew")
@_signing.directory
@click.argument("roles", nargs=-1, metavar="[ROLE]...")
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
def renew(
    directory: Path,
    roles: tuple[str, ...],
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Sign roles anew, as they are: each ROLE (root, targets, stable-x86_64), or what is half over.

    A named role that --keys cannot sign alone waits for the other signatures, see `phase release sign`.
    """
    from phase.release.roles import ONLINE

    keys = _signing.load(key_directories, passphrase_file)
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        renewed = set(repository.renew(roles or None)) - set(ONLINE)
        if not renewed:
            click.echo("nothing expires soon that these keys can sign")
        else:
            _publishing.finish(repository, hold=hold)
        urgent = _publishing.warn(repository, _release.now())
    if urgent:
        sys.exit(_publishing.ATTENTION)


@click.command("status")
@_signing.directory
@click.option(
    "--root", "root_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Trusted root."
)
@_signing.as_json
def status(directory: Path, root_file: Path | None, as_json: bool) -> None:
    """Say what must be signed, by whom and until when. For monitoring.

    Ends with 0 if all holds, with 3 if something expires soon or has expired, with 1 if a machine would
    refuse the signatures.
    """
    from phase.release import status as states
    from phase.release.repository import Repository

    repository = Repository.open(directory, root=_trusted(directory, root_file))
    found = states.published(repository, _release.now())
    urgent = any(each.state in states.URGENT for each in found)
    if as_json:
        click.echo(json.dumps({"roles": [_facts(each) for each in found], "waiting": _waiting(repository)}))
    else:
        for each in found:
            many = f"{each.threshold} of {len(each.keys)} sign"
            name = f"{each.role} {each.release}".strip()
            click.echo(f"{name}: {each.state}, until {each.expires:%Y-%m-%d %H:%M} UTC, {many}")
        _tell_waiting(repository)
        for each in found:
            if each.state in states.URGENT:
                click.echo(_publishing.urgent_line(each))
    if urgent:
        sys.exit(_publishing.ATTENTION)


def _trusted(directory: Path, root_file: Path | None) -> bytes | None:
    if root_file is not None:
        return _release.read_root(root_file)
    return _publishing.first_root(directory)


def _facts(each: "RoleStatus") -> dict[str, Any]:
    times = {"expires": each.expires, "renew_by": each.renew_by}
    return each._asdict() | {name: f"{when:%Y-%m-%dT%H:%M:%SZ}" for name, when in times.items()}


def _waiting(repository: "Repository") -> list[dict[str, Any]]:
    """What waits for signatures, for scripts."""
    lacks: dict[str, list[dict[str, Any]]] = {role: [] for role in repository.staged}
    for role in lacks:
        for each in repository.lacks([role]):
            lacks[role].append({"by": each.role, "signed": len(each.signed), "threshold": each.threshold})
    return [
        {"role": role, "version": repository.staged[role].signed.version, "missing": missing}
        for role, missing in sorted(lacks.items())
    ]


def _tell_waiting(repository: "Repository") -> None:
    for each in _waiting(repository):
        counts = [f"{one['by']} {one['signed']}/{one['threshold']}" for one in each["missing"]]
        what = f"waits for signatures: {', '.join(counts)}" if counts else "waits to be published"
        click.echo(f"{each['role']}, version {each['version']}, {what}")


@click.command("show")
@_signing.directory
@_signing.as_json
def show(directory: Path, as_json: bool) -> None:
    """Say what is published, who signs it, and what waits for signatures."""
    from phase.release import roles, staging
    from phase.release.repository import Repository

    repository = Repository.open(directory)
    rules = repository.published_rules()
    facts: dict[str, Any] = {
        "published": bool(rules),
        "roles": {
            role: {"threshold": rule.threshold, "keys": [roles.public(key) for key in rule.keys]}
            for role, rule in rules.items()
        },
        "expires": {
            role: f"{signed.expires:%Y-%m-%dT%H:%M:%SZ}" for role, signed in repository.published().items()
        },
        "releases": [_release_facts(repository, *pair) for pair in repository.present()],
        "waiting": _waiting(repository),
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    if not rules:
        click.echo("not published yet")
    for role, rule in facts["roles"].items():
        click.echo(f"{role}: {rule['threshold']} of {len(rule['keys'])} sign")
        for public in rule["keys"]:
            click.echo(f"  {public}")
    for each in facts["releases"]:
        names = ", ".join(f"{name} {length}" for name, length in each["artifacts"].items())
        click.echo(
            f"{each['channel']}/{each['arch']} {each['release']} (version {each['version']}): {names}"
        )
    for role, when in facts["expires"].items():
        click.echo(f"{role} holds until {when}")
    _tell_waiting(repository)
    before = repository.published()
    for role, metadata in sorted(repository.staged.items()):
        for line in staging.summary(role, metadata, before.get(role)):
            click.echo(f"  {line}")


def _release_facts(repository: "Repository", channel: str, arch: str) -> dict[str, Any]:
    found = repository.manifest(channel, arch)
    return {
        "channel": channel,
        "arch": arch,
        "release": found.release,
        "version": found.version,
        "cmdline": found.cmdline,
        "artifacts": {name: each.length for name, each in sorted(found.artifacts.items())},
    }


@click.command("prune")
@_signing.directory
def prune(directory: Path) -> None:
    """Remove what no machine can ask for any more: old metadata, and the files of releases long replaced."""
    from phase.release import prune as pruning

    with _publishing.opened(directory, (), ReleaseKeys({})) as repository:
        done = pruning.prune(repository, waiting=repository.waiting_blobs())
    click.echo(f"removed {done.metadata} metadata files and {done.blobs} artifacts")


@click.command("restore")
@_signing.directory
@click.option(
    "--ahead",
    type=click.IntRange(1, 1_000_000),
    help="Go so many versions ahead, where --keys do not remember what was published last.",
)
@_signing.root
@_signing.keys
@_signing.passphrase_file
def restore(
    directory: Path,
    ahead: int | None,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Publish a repository that came from a backup: with versions above what was published since.

    Machines refuse versions below those they have seen. The directory of keys remembers them; where it came
    from the same backup, --ahead says how many publications may have been lost. The releases are those of
    the backup: add the newer ones again.
    """
    keys = _signing.load(key_directories, passphrase_file, ROLES[1:])
    with _publishing.opened(
        directory, key_directories, keys, root_file, resume=False, restore=True
    ) as repository:
        raised = repository.restore(ahead or 0)
        if not raised:
            raise PhaseError(
                f"{directory} is not older than what these keys remember",
                hint="If they come from the same backup, give --ahead.",
            )
        repository.publish()
    click.echo(f"published again, above what machines may have seen: {', '.join(raised)}")
    click.echo(f"timestamp until {repository.timestamp_expires:%Y-%m-%d %H:%M} UTC")


COMMANDS: Iterable[click.Command] = (refresh, renew, status, show, prune, restore)
