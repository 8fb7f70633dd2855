"""A repository for unsigned files, made on this machine with keys of this machine.

For a first try, and for machines that get this root. The state directory holds the keys and the repository;
the artifacts stay as they are.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec

from phase import arch as arches
from phase import files
from phase.beneath import Beneath
from phase.foreign import MalformedError, read_json
from phase.plausible import EARLIEST
from phase.release import keys as release_keys
from phase.release import owner, prune
from phase.release.artifacts import artifacts_beneath, read_cmdline_beneath, scan
from phase.release.errors import ReleaseError, RepositoryError
from phase.release.manifest import role_name
from phase.release.repository import Repository

_SCANNED = "scanned.json"
#: Seconds between two checks of the signatures, with the removal of old files.
RENEW_SECONDS = 3600.0
#: The clock may go back this far without a new check of the signatures.
_BACK = timedelta(seconds=60)
_log = logging.getLogger(__name__)


class _Signed(NamedTuple):
    """The last time that files were signed.

    Attributes:
        scan: the look of the artifacts.
        looked: the moment, monotonic seconds.
        at: the moment by the clock, UTC.
        until: when a role must be signed anew, UTC.
    """

    scan: str
    looked: float
    at: datetime
    until: datetime


class Refreshed(NamedTuple):
    """The result of a refresh.

    Attributes:
        created: the repository and its keys are new.
        signed: why roles were signed anew; empty if nothing was signed.
        lines: the same for people.
    """

    created: bool
    signed: tuple[str, ...]
    lines: tuple[str, ...]


class LocalRepository:
    """A directory of artifacts, kept signed.

    Args:
        artifacts: holds `{channel}/{arch}/kernel` and so on, and perhaps a file `cmdline` beside them.
        state: directory of the keys and the repository.
        channel: of the release.
        arch: any usual name.
        clock: the time, UTC.
    """

    def __init__(
        self,
        artifacts: Path,
        state: Path,
        channel: str,
        arch: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.channel = channel
        self.arch = arches.canonical(arch)
        self._role = role_name(channel, self.arch)
        self._artifacts = artifacts
        self._path = f"{channel}/{self.arch}"
        self._source = artifacts / channel / self.arch
        self._clock = clock
        self._state = state
        #: The repository that a provider serves.
        self.directory = state / "tree"
        self.keys = state / "keys"
        #: The look of the artifacts at the last check, for `keep_up`.
        self._seen = ""
        self._signed: _Signed | None = None

    def refresh(self, *, now: datetime | None = None) -> Refreshed:
        """Make the repository, or sign anew the roles that have changed or expire soon.

        Call again now and then while serving, well within a day.

        Args:
            now: the time to sign for, UTC; the clock's when left out.

        Returns:
            The result.

        Raises:
            ReleaseError: there is no kernel, or a file cannot be read, signed or written.
        """
        moment = now or self._clock()
        found = artifacts_beneath(self._artifacts, self._path)
        try:
            with owner.owned(self._state, self._artifacts):
                seen = scan(found, read_cmdline_beneath(self._artifacts, self._path))
                done, until = self._refresh(found, seen, moment)
        except OSError as error:
            raise RepositoryError(
                f"local repository {self._state} cannot be written: {error.strerror}",
                hint="Choose a writable state directory.",
            ) from error
        self._seen, self._signed = seen, _Signed(seen, monotonic(), moment, until)
        return done

    def keep_up(self) -> Refreshed | None:
        """Check whether files have changed or signatures expire soon, and sign anew then.

        Call it every few seconds. A file that is being copied is left alone: a change counts once the file
        has stayed the same from one check to the next.

        Returns:
            The result, or None if nothing was to be done.

        Raises:
            ReleaseError: as `refresh`.
        """
        try:
            found = artifacts_beneath(self._artifacts, self._path)
            seen = scan(found, read_cmdline_beneath(self._artifacts, self._path))
        except ReleaseError:
            # Clients still accept the served release while the new files cannot be read.
            if self._signed is not None and not self._in_time(self._signed):
                self._renew_only(self._signed)
            raise
        settled, self._seen = seen == self._seen, seen
        last = self._signed
        if not settled or (last is not None and seen == last.scan and self._in_time(last)):
            return None
        done = self.refresh()
        if done.signed:
            _log.info("signed anew: %s", "; ".join(done.signed))
        return done

    def _in_time(self, last: _Signed) -> bool:
        """Whether the last signatures still hold for long enough."""
        if monotonic() - last.looked >= RENEW_SECONDS:
            return False
        # Use the clock, not the seconds passed: it may have been set, or the machine may have slept.
        return last.at - _BACK <= self._clock() < last.until

    def _renew_only(self, last: _Signed) -> None:
        """Sign the published roles anew."""
        now = self._clock()
        with owner.owned(self._state, self._artifacts):
            repository = Repository.open(self.directory, keys=release_keys.load(self.keys), now=now)
            repository.clock_was_ahead = True
            if reasons := _renewed(repository, now):
                repository.publish()
                _log.info("signed anew: %s", "; ".join(reasons))
        self._signed = _Signed(last.scan, monotonic(), now, repository.renew_at())

    def _refresh(self, found: Mapping[str, Beneath], seen: str, now: datetime) -> tuple[Refreshed, datetime]:
        created = not (self.directory / "metadata" / "timestamp.json").exists()
        if created and not self.keys.exists():
            release_keys.ReleaseKeys.generate(release_keys.LOCAL_COUNTS).save(self.keys)
        keys = release_keys.load(self.keys)
        if created:
            repository = Repository.create(self.directory, keys=keys, now=now)
        else:
            repository = Repository.open(self.directory, keys=keys, now=now)
        # There is no person to ask, so the present time of this machine's clock counts.
        repository.clock_was_ahead = True
        cmdline = read_cmdline_beneath(self._artifacts, self._path)
        reasons = _renewed(repository, now)
        scans = self._scans()
        known = (self.channel, self.arch) in repository.releases()
        if scans.get(self._role) != seen or not known:
            reasons.insert(0, f"{self._role} has changed" if known else f"{self._role} is new")
            repository.add(self.channel, self.arch, found, cmdline=cmdline, release=f"local-{seen[:12]}")
            if scan(found, cmdline) != seen:
                raise RepositoryError(
                    f"{self._source} was written to while it was read", hint="Try again when it is complete."
                )
        if reasons:
            repository.publish()
            # Write this last: if interrupted before, the next refresh signs once more, which is harmless.
            text = msgspec.json.encode({**scans, self._role: seen})
            files.write(self._state / _SCANNED, text)
        prune.prune(repository)
        told = self._told(created, reasons, sorted(found))
        return Refreshed(created, tuple(reasons), told), repository.renew_at()

    def _told(self, created: bool, reasons: list[str], names: list[str]) -> tuple[str, ...]:
        root = self.directory / "metadata" / "1.root.json"
        lines = []
        if created:
            lines.append(f"{self._source} holds no signed release: made one in {self._state}")
            lines.append(f"signed with keys of this machine only; a seed must be given {root} to believe it")
        if reasons:
            lines.append(f"signed {', '.join(names)} as {self._role}: {'; '.join(reasons)}")
        return tuple(lines)

    def _scans(self) -> dict[str, str]:
        try:
            return read_json((self._state / _SCANNED).read_bytes(), dict[str, str])
        except (FileNotFoundError, MalformedError):
            return {}  # costs one more signature, no more


def _renewed(repository: Repository, now: datetime) -> list[str]:
    """Give signatures their whole time anew if they are due; returns why."""
    reasons = [f"{role} expires soon" for role in repository.renew()]
    # A clock that was never set must not shorten correct signatures.
    if now.timestamp() >= EARLIEST:
        reasons += [f"{role} held for too long" for role in repository.shorten()]
    return reasons
