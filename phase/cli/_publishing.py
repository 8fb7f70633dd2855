"""What the signing commands of `phase release` share: a repository, judged, for one process at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _release, _signing
from phase.errors import PhaseError, printable
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys

if TYPE_CHECKING:
    from phase.release.pinned import Pin
    from phase.release.repository import Repository
    from phase.release.roles import Lack
    from phase.release.status import RoleStatus

#: Exit code: it is done, and something else needs a person soon.
ATTENTION = 3


@contextmanager
def opened(
    directory: Path,
    key_directories: Iterable[Path],
    keys: ReleaseKeys,
    root_file: Path | None = None,
    *,
    resume: bool = True,
    restore: bool = False,
) -> Iterator["Repository"]:
    """A repository, locked, and verified by what the keys' directories remember and keep up to date.

    Args:
        directory: where it is.
        key_directories: remember which repository it is, and what was published last.
        keys: theirs.
        root_file: the first root, where they do not.
        resume: as for `Repository.open`.
        restore: the same.
    """
    from phase.release import journal
    from phase.release.pinned import Pin
    from phase.release.repository import Repository

    if not (directory / journal.PLACE).exists():
        identity(directory, root_file)  # nothing is made where there is no repository
    with _signing.locked(directory):
        journal.finish(directory)
        pin = Pin(key_directories, identity(directory, root_file), told=root_file is not None)
        repository = Repository.open(
            directory,
            keys=keys,
            root=None if root_file is None else _release.read_root(root_file),
            floors=pin.floors,
            spent=pin.signed,
            resume=resume,
            restore=restore,
            now=_release.now(),
        )
        try:
            yield repository
        finally:  # also where what was published could not be told
            remember(pin, repository)


def remember(pin: "Pin", repository: "Repository") -> None:
    """Note beside the keys what is published now."""
    known, signed = pin.known, repository.spent()
    if repository.floor not in pin.floors or signed.items() - pin.signed.items():
        for line in pin.remember(repository.floor, signed):
            if not known:  # else something is remembered, if not the newest; cron need not say it every day
                click.echo(line, err=True)


def identity(directory: Path, root_file: Path | None) -> str:
    """What the repository is known by, see `pinned.repository_id`.

    Raises:
        RepositoryError: there is none; or it begins with another root than the file.
    """
    from phase.release.pinned import repository_id

    found = repository_id(first_root(directory) or _staged_root(directory))
    if root_file is not None and repository_id(_release.read_root(root_file)) != found:
        raise RepositoryError(
            f"{directory} begins with another root than {root_file}: {found}",
            hint="Somebody has replaced it, or it is another repository.",
        )
    return found


def first_root(directory: Path) -> bytes | None:
    """The first root that is published; None where nothing is."""
    from phase.release import check, roles
    from phase.trust import NotFoundError

    try:
        return check.reader(directory)("1.root.json", roles.MAX_ROOT)
    except NotFoundError:
        return None


def _staged_root(directory: Path) -> bytes:
    from phase.release import check, roles
    from phase.release.staging import PLACE
    from phase.trust import NotFoundError

    try:
        return check.read_plain(directory / PLACE / "root.json", roles.MAX_ROOT)
    except NotFoundError:
        raise RepositoryError(
            f"{directory} is not a repository", hint="Begin one with `phase release init`."
        ) from None


def finish(
    repository: "Repository", *, gap: bool = False, all_waiting: bool = False, hold: bool = False
) -> None:
    """Publish what all have signed; say who has not signed the rest, which waits."""
    done = repository.settle(gap=gap, all_waiting=all_waiting, hold=hold)
    for each in done.waiting:
        click.echo(lack_line(each))
    for note in done.notes:
        click.echo(note, err=True)
    if done.roles:
        what = ", ".join(done.roles)
        click.echo(f"published in {repository.directory}: {what}; timestamp until {_until(repository)}")
    elif repository.staged:
        click.echo(
            f"nothing new is published: for the other signatures, see "
            f"`phase release sign {repository.directory} --export DIRECTORY`"
        )


def _until(repository: "Repository") -> str:
    return f"{repository.timestamp_expires:%Y-%m-%d %H:%M} UTC"


def lack_line(each: "Lack") -> str:
    """One role that waits for signatures, for people."""
    return f"{each.role}: {len(each.signed)} of {each.threshold} signatures"


def warn(repository: "Repository", now: datetime) -> bool:
    """Say on stderr what a person must renew soon; whether there is anything."""
    from phase.release import status

    found = [each for each in status.published(repository, now) if each.state in status.URGENT]
    for each in found:
        click.echo(urgent_line(each), err=True)
    return bool(found)


def urgent_line(each: "RoleStatus") -> str:
    """What to renew, with which key, until when."""
    from phase.release.roles import ONLINE, kind

    ended = "expired" if each.state == "expired" else "expires"
    many = "a key" if each.threshold == 1 else f"{each.threshold} keys"
    verb = "refresh" if each.role in ONLINE else "renew"
    return (
        f"{each.role} {ended} at {each.expires:%Y-%m-%d %H:%M} UTC: "
        f"run `phase release {verb}` with {many} of {kind(each.role)}"
    )


def confirm(lines: Iterable[str], question: str, *, yes: bool) -> None:
    """Show what changes, and ask.

    Raises:
        PhaseError: the answer is not yes.
    """
    for line in lines:
        click.echo(printable(line))
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise PhaseError("nothing has changed", hint="Answer yes, or give --yes.")
