"""A repository for files nobody signed: made on this machine, with keys of this machine.

For a first try, and for machines that are given this root. The state directory holds the keys and
the repository; the artifacts stay as they are.
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
#: Seconds after which signatures are looked at again, and what is kept no longer is removed.
RENEW_SECONDS = 3600.0
#: How far the clock may go back without a new look at what was signed.
_BACK = timedelta(seconds=60)
_log = logging.getLogger(__name__)


class _Signed(NamedTuple):
    """What was signed last.

    Attributes:
        scan: what the artifacts looked like.
        looked: when, monotonic seconds.
        at: the same by the clock, UTC.
        until: when something has to be signed anew, UTC.
    """

    scan: str
    looked: float
    at: datetime
    until: datetime


class Refreshed(NamedTuple):
    """What a refresh did.

    Attributes:
        created: the repository is new, and so are its keys.
        signed: why something was signed anew; empty if all still holds.
        lines: the same for people.
    """

    created: bool
    signed: tuple[str, ...]
    lines: tuple[str, ...]


class LocalRepository:
    """A directory of artifacts, kept signed.

    Args:
        artifacts: holds `{channel}/{arch}/kernel` and so on, and perhaps a file `cmdline` beside them.
        state: where keys and repository are kept.
        channel: which release.
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
        #: What a provider serves.
        self.directory = state / "tree"
        self.keys = state / "keys"
        #: What the artifacts looked like at the last look; for `keep_up`, as the next.
        self._seen = ""
        self._signed: _Signed | None = None

    def refresh(self, *, now: datetime | None = None) -> Refreshed:
        """Make the repository, or sign anew what has changed or expires soon.

        Call again now and then while serving, well within a day.

        Args:
            now: the time to sign for, UTC; the clock's when left out.

        Returns:
            What was done.

        Raises:
            ReleaseError: no kernel there, or something cannot be read, signed or written.
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
        """Look whether something has changed or expires soon, and sign it then. Call every few seconds.

        A file that is being copied is left alone: what changes counts once it has stayed the same
        from one look to the next.

        Returns:
            What was done, if anything had to be.

        Raises:
            ReleaseError: as `refresh`.
        """
        try:
            found = artifacts_beneath(self._artifacts, self._path)
            seen = scan(found, read_cmdline_beneath(self._artifacts, self._path))
        except ReleaseError:
            # What is served goes on to be believed, for as long as its files cannot be read.
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
        """Whether what was signed last still holds for long enough."""
        if monotonic() - last.looked >= RENEW_SECONDS:
            return False
        # By the clock, not by seconds that have passed: it may have been set, or the machine may have slept.
        return last.at - _BACK <= self._clock() < last.until

    def _renew_only(self, last: _Signed) -> None:
        """Sign anew what is published."""
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
        # Nobody is there to be asked: of this machine's clock, the present time counts.
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
            # Last: interrupted before, the next refresh signs once more; never once too few.
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
    """Give signatures their time anew, where the clock says so; returns why."""
    reasons = [f"{role} expires soon" for role in repository.renew()]
    # A clock that was never set must not shorten what is right.
    if now.timestamp() >= EARLIEST:
        reasons += [f"{role} held for too long" for role in repository.shorten()]
    return reasons
