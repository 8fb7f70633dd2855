"""What the signing commands of `phase release` share: a repository, judged, for one process at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase.cli import _release, _signing
from phase.cli._signing import Signer
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys

if TYPE_CHECKING:
    from phase.cli.facts import Waiting
    from phase.release.pinned import Pin
    from phase.release.repository import Repository
    from phase.release.roles import Lack
    from phase.release.status import RoleStatus

#: Exit code: it is done, and something else needs a person soon.
ATTENTION = 3


@contextmanager
def opened(
    directory: Path,
    signer: Signer,
    keys: ReleaseKeys,
    *,
    resume: bool = True,
    restore: bool = False,
) -> Iterator["Repository"]:
    """A repository, locked, and verified by what the keys' directories remember and keep up to date.

    Args:
        directory: where it is.
        signer: whose directories remember which repository it is, and what was published last.
        keys: of the signer, loaded: that asks for passphrases, and nothing is locked meanwhile.
        resume: as for `Repository.open`.
        restore: the same.
    """
    from phase.release import journal
    from phase.release.pinned import Pin
    from phase.release.repository import Repository

    root_file = signer.root_file
    if not (directory / journal.PLACE).exists():
        identity(directory, root_file)  # nothing is made where there is no repository
    with _signing.locked(directory):
        journal.finish(directory)
        pin = Pin(signer.key_directories, identity(directory, root_file), told=root_file is not None)
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
                note(line)


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
    repository: "Repository",
    out: Out,
    *,
    gap: bool = False,
    all_waiting: bool = False,
    hold: bool = False,
    renewed: Sequence[str] = (),
    urgent: Sequence[str] = (),
) -> None:
    """Publish what all have signed; say who has not signed the rest, which waits.

    Args:
        repository: opened.
        out: gets what was done.
        gap: as for `Repository.settle`.
        all_waiting: the same.
        hold: the same.
        renewed: roles signed anew as they were.
        urgent: roles that somebody else must renew.
    """
    done = repository.settle(gap=gap, all_waiting=all_waiting, hold=hold)
    out.done = True
    for note_ in done.notes:
        note(note_)
    for each in done.waiting:
        out.line(lack_line(each))
    if done.roles:
        what = ", ".join(done.roles)
        out.line(f"published in {repository.directory}: {what}; timestamp until {_until(repository)}")
    elif repository.staged:
        out.line(
            f"nothing new is published: for the other signatures, see "
            f"`phase release sign {repository.directory} --export DIRECTORY`"
        )
    tell(repository, out, published=done.roles, renewed=renewed, urgent=urgent)


def tell(
    repository: "Repository",
    out: Out,
    *,
    published: Sequence[str] = (),
    renewed: Sequence[str] = (),
    discarded: Sequence[str] = (),
    urgent: Sequence[str] = (),
) -> None:
    """Tell scripts what has become of a repository, see `phase.cli.facts.Change`."""
    if not out.as_json:
        return
    from phase.cli.facts import Change, utc

    begun = bool(repository.published())
    out.facts(
        Change(
            published=list(published),
            waiting=waiting(repository),
            timestamp_expires=utc(repository.timestamp_expires) if begun else None,
            renewed=list(renewed),
            discarded=list(discarded),
            urgent=list(urgent),
        )
    )


def waiting(repository: "Repository") -> list["Waiting"]:
    """What waits for signatures, for scripts."""
    from phase.cli.facts import Missing, Waiting

    return [
        Waiting(
            role=role,
            version=repository.staged[role].signed.version,
            missing=[
                Missing(by=each.role, signed=len(each.signed), threshold=each.threshold)
                for each in repository.lacks([role])
            ],
        )
        for role in sorted(repository.staged)
    ]


def _until(repository: "Repository") -> str:
    return f"{repository.timestamp_expires:%Y-%m-%d %H:%M} UTC"


def lack_line(each: "Lack") -> str:
    """One role that waits for signatures, for people."""
    return f"{each.role}: {len(each.signed)} of {each.threshold} signatures"


def warn(repository: "Repository", now: datetime) -> list[str]:
    """Say on standard error what a person must renew soon; the roles."""
    from phase.release import status

    found = [each for each in status.published(repository, now) if each.state in status.URGENT]
    for each in found:
        note(urgent_line(each))
    return [each.role for each in found]


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


def confirm(lines: Iterable[str], question: str, out: Out, *, yes: bool) -> None:
    """Show what changes, and ask.

    Raises:
        PhaseError: the answer is not yes.
    """
    for line in lines:
        out.show(line)
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        agreed = False
    if not agreed:
        raise PhaseError("nothing has changed", hint="Answer yes, or give --yes.")
