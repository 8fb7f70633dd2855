"""Changes to a repository that are not published yet: what each role is to be, and who must sign it."""

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Snapshot, TargetFile, Targets

from phase import arch as arches
from phase.release import blobs, lifetimes, roles
from phase.release.errors import KeysError, RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.lifetimes import Expiry
from phase.release.manifest import (
    CHUNK_SIZE,
    FIELD,
    Manifest,
    check_cmdline,
    check_name,
    check_release,
    role_name,
)
from phase.release.roles import ONLINE, TOP, Rule
from phase.release.tree import AnyRole, Tree
from phase.trust import Floor

#: A signature that holds for so many days more than its usual time was made by a wrong clock.
_SLACK_DAYS = 1.0
#: Versions left free below what waits for signatures: what is published meanwhile is renewed with them.
_ROOM = 16


class Draft(Tree):
    """A published repository, and the changes to it; see `phase.release.repository`, which publishes them.

    Args:
        directory: where it is.
        keys: signers at hand.
        expiry: for how long signatures hold.
        now: the time to sign for, UTC; the clock's when left out.
    """

    def __init__(
        self, directory: Path, keys: ReleaseKeys | None, expiry: Expiry | None, now: datetime | None
    ) -> None:
        super().__init__(directory)
        self._keys = keys or ReleaseKeys({})
        self._expiry = expiry or Expiry()
        self._now = now
        #: Roles as they are to be. What is published stays in `_signed`.
        self._drafts: dict[str, AnyRole] = {}
        #: Drafts that have their version, with the signatures there are.
        self._waiting: dict[str, Metadata[Any]] = {}
        #: Roles that waited when this was opened, and hold what others have drafted: only `sign` signs them.
        self._inherited: set[str] = set()
        #: Roles whose staged files are this object's to remove.
        self._resumed: set[str] = set()
        #: What was published last, or before a loss: nothing is signed with a version at or below these.
        self._floor = Floor()
        #: The highest versions that keys at hand have signed, also of what was given up since.
        self._spent: Mapping[str, int] = {}
        #: Drafts that say what is published already.
        self._unchanged: set[str] = set()
        #: Of snapshot and timestamp, those that were signed by a clock that was ahead.
        self._shortened: set[str] = set()
        #: What is published was signed by a clock that was ahead: what ends sooner may replace it.
        self.clock_was_ahead = False
        self._rules: dict[str, Rule] = {}
        self._notes: list[str] = []
        #: The first root, by which what is published is judged.
        self._anchor = b""

    def add(
        self,
        channel: str,
        arch: str,
        artifacts: Mapping[str, blobs.Source],
        *,
        cmdline: str = "",
        release: str,
        expires: datetime | None = None,
        days: float | None = None,
    ) -> None:
        """Make these files the release of a channel and architecture, from the next `publish` on.

        Args:
            channel: for example `stable`.
            arch: any usual name.
            artifacts: name to file; a `kernel` at least. They are copied.
            cmdline: kernel command line to sign.
            release: version for people.
            expires: UTC; by `days` when left out. Renewed, it holds for as long again.
            days: for how long it holds; by `Expiry` when left out.

        Raises:
            ManifestError: a name, the command line or the version cannot be signed.
            RepositoryError: a file cannot be read or stored.
        """
        arch = arches.canonical(arch)
        role = role_name(channel, arch)
        facts: dict[str, Any] = {
            "channel": channel,
            "arch": arch,
            "release": check_release(release),
            "cmdline": check_cmdline(cmdline),
        }
        if days is not None:
            facts[lifetimes.FIELD] = max(1, round(days * 86_400))
        elif expires is not None:
            facts[lifetimes.FIELD] = max(1, int((expires - self._time()).total_seconds()))
        targets = {}
        for name, path in sorted(artifacts.items()):
            hashed = blobs.store(self.directory / blobs.PLACE, path)
            target = f"{channel}/{arch}/{check_name(name)}"
            extra = {"custom": {"phase": {"chunk_size": CHUNK_SIZE, "chunks": list(hashed.chunks)}}}
            targets[target] = TargetFile(hashed.length, {"sha256": hashed.sha256}, target, extra)
        self._put(role, Targets(targets=targets, unrecognized_fields={FIELD: facts}), expires)

    def promote(self, channel: str, to: str, arch: str, *, expires: datetime | None = None) -> None:
        """Make the published release of a channel that of another too, from the next `publish` on.

        Args:
            channel: where it is, published: for example `testing`.
            to: where it goes: for example `stable`.
            arch: any usual name.
            expires: UTC; as long from now as the release holds in its channel when left out.

        Raises:
            ManifestError: `to` is no channel's name.
            RepositoryError: there is no such release.
        """
        manifest = self.manifest(channel, arch)
        source = cast("Targets", self._signed[role_name(channel, manifest.arch)])
        targets = {}
        for name, artifact in manifest.artifacts.items():
            found = source.targets[artifact.path]
            path = f"{to}/{manifest.arch}/{name}"
            targets[path] = TargetFile(found.length, found.hashes, path, found.unrecognized_fields)
        facts = source.unrecognized_fields[FIELD] | {"channel": to}
        role = role_name(to, manifest.arch)
        self._put(role, Targets(targets=targets, unrecognized_fields={FIELD: facts}), expires)

    def withdraw(self, channel: str, arch: str) -> None:
        """Offer nothing for a channel and architecture, from the next `publish` on.

        Raises:
            RepositoryError: there is no such release.
        """
        role = role_name(channel, arches.canonical(arch))
        if role not in self._after_delegations:
            raise RepositoryError(f"{self.directory} has no release of {channel}/{arch}")
        self._forget(role)
        targets = self._targets_draft()
        _delegated(targets).pop(role)
        self._remember_release_keys(targets)

    def _put(self, role: str, signed: Targets, expires: datetime | None) -> None:
        """Take a role's new content."""
        signed.version = 1  # until it is signed
        signed.expires = (expires or self._until(self._days(role, signed))).replace(microsecond=0)
        Manifest.from_role(role, signed)  # what clients would refuse is not signed
        if role in self._inherited:
            self._notes.append(f"the release of {role} that waited is given up: this one takes its place")
        self._draft(role, signed)
        self._inherited.discard(role)
        self._delegate(role)

    def renew(self, wanted: Collection[str] | None = None) -> list[str]:
        """Draft roles again, unchanged, with their whole time left; `publish` signs them.

        Args:
            wanted: roles to renew, also those that do not expire soon or that the keys at hand cannot sign;
                when left out, those with less than half of their usual time left that these keys can sign.

        Returns:
            The roles.

        Raises:
            RepositoryError: one of `wanted` is not published, waits for signatures, or is renewed by every
                publication.
        """
        if wanted is not None:
            self._check_renewable(wanted)
        renewed = []
        for role in list(self._signed) if wanted is None else wanted:
            if wanted is None and (role in self._drafts or not self._due(role)):
                continue
            if wanted is None and not self._can_sign(role, [self._root if role in TOP else self._targets]):
                continue
            if role not in ONLINE:
                copied = self._copy(role)
                self._draft(role, copied, self._days(role, copied))
            self._unchanged.add(role)
            renewed.append(role)
        return renewed

    def restore(self, ahead: int = 0) -> list[str]:
        """Give each role that is older than the newest published one a version above it; `publish` signs.

        Args:
            ahead: go so many versions further.

        Returns:
            The roles, snapshot and timestamp among them; empty if nothing is older.

        Raises:
            RepositoryError: a root is lost: nothing can stand in for it.
        """
        last, floor = self._signed["root"].version, self._floor
        if absent := set(self._delegations) - set(self._signed):
            raise RepositoryError(
                f"metadata of {', '.join(sorted(absent))} is not here", hint="Use the whole repository."
            )
        if floor.root > last:
            raise RepositoryError(
                f"the newest root in {self.directory} is version {last}; version {floor.root} was published",
                hint="Copy the newer root files from any export, provider or machine that has them.",
            )
        meta = {file: found.version + ahead for file, found in self._snapshot.meta.items()}
        meta = {file: max(version, meta.get(file, 0)) for file, version in (meta | dict(floor.meta)).items()}
        self._floor = floor._replace(
            timestamp=max(floor.timestamp, self._timestamp.version + ahead),
            snapshot=max(floor.snapshot, self._snapshot.version + ahead),
            meta=meta,
        )
        raised = []
        for role in ("targets", *self._delegations):
            unsigned = role == "targets" and self._unsigned(role, self._root)
            if meta.get(f"{role}.json", 0) <= self._signed[role].version and not unsigned:
                continue
            copied = self._copy(role)
            self._draft(role, copied, self._days(role, copied))
            raised.append(role)
        for role in ONLINE:
            if self._last_version(role) > self._signed[role].version:
                raised.append(role)
        return raised

    def _check_renewable(self, wanted: Collection[str]) -> None:
        for role in wanted:
            if role in ONLINE:
                raise RepositoryError(f"every publication renews the {role}", hint="Use refresh.")
            if role not in self._signed:
                raise RepositoryError(
                    f"{self.directory} has no role {role[:80]!r}",
                    hint=f"It has {', '.join(self.published())}.",
                )
            if role in self._drafts:
                raise RepositoryError(
                    f"{role} waits for signatures already", hint="Sign that, or discard it first."
                )

    def due(self) -> list[str]:
        """The roles with less than half of their usual time left."""
        return [role for role in self._signed if self._due(role)]

    def _due(self, role: str) -> bool:
        signed = self._signed[role]
        return signed.expires < self._until(self._days(role, signed) / 2)

    def _days(self, role: str, signed: AnyRole) -> float:
        return roles.lifetime(role, signed, self._expiry)

    def renew_at(self) -> datetime:
        """When `renew` has something to do for the first time, UTC."""
        return min(
            signed.expires - timedelta(days=self._days(role, signed) / 2)
            for role, signed in self._signed.items()
        )

    def shorten(self) -> list[str]:
        """Give the timestamp and the snapshot their usual time, where they hold for longer than that.

        They were signed while the clock was wrong. The timestamp says what is the newest: one that holds for
        years lets an attacker keep clients on old releases for years. `publish` signs them.

        Returns:
            The roles.
        """
        self._shortened = {
            role
            for role in ONLINE
            if role in self._signed
            and self._signed[role].expires
            > self._until(lifetimes.days(role, None, self._expiry) + _SLACK_DAYS)
        }
        return sorted(self._shortened)

    def rotate(self, keys: ReleaseKeys, *, rules: Mapping[str, Rule] | None = None) -> None:
        """Replace keys, from the next `publish` on; clients follow from any root they trust.

        Args:
            keys: new signers at hand, beside those this repository was opened with. The old ones
                sign once more: the next root, so that it is believed, and the rest so that a client
                sees no moment between two sets of keys.
            rules: whose signatures each role needs from now on; more than half of `keys` when left out.

        Raises:
            KeysError: a role has no key.
        """
        found = dict(rules or roles.rules(keys))
        roles.check(found)
        self._keys |= keys
        self._rules = found
        self._draft("root", roles.root(found), self._expiry.root)
        for role in list(self._after_delegations):
            self._delegate(role)
        if roles.release_field(found["release"]) != self._after_targets.unrecognized_fields.get(
            roles.RELEASE_FIELD
        ):
            self._remember_release_keys(self._targets_draft())

    @property
    def rules(self) -> dict[str, Rule]:
        """Whose signatures each role needs, once what waits is published."""
        return dict(self._rules)

    @property
    def unpublished(self) -> bool:
        """Whether there are drafts."""
        return bool(self._drafts)

    def _draft(self, role: str, signed: AnyRole, days: float | None = None) -> None:
        """Let a role be this; what has signed an earlier draft of it no longer counts."""
        if role in TOP or days is not None:
            signed.expires = self._until(lifetimes.days(role, None, self._expiry) if days is None else days)
        self._drafts[role] = signed
        self._unchanged.discard(role)
        waited = self._waiting.pop(role, None)
        if waited is not None and waited.signatures:
            self._notes.append(f"{role} waited with signatures; it has changed, and they count no longer")

    def _forget(self, role: str) -> None:
        self._drafts.pop(role, None)
        self._waiting.pop(role, None)
        self._inherited.discard(role)

    def _unsigned(self, role: str, delegator: Root | Targets) -> bool:
        """Whether a published role lacks signatures by this rule."""
        metadata = Metadata.from_bytes(self._bytes[role])
        return roles.lack(role, roles.demand(role, delegator), metadata) is not None

    def _copy(self, role: str) -> AnyRole:
        """A published role, to change."""
        return self._read(role, self._bytes[role])

    def _targets_draft(self) -> Targets:
        """The top-level targets, to change."""
        targets = self._drafts.get("targets") or self._copy("targets")
        self._draft("targets", targets)
        return cast("Targets", targets)

    def _delegate(self, role: str) -> bool:
        """Let the release keys sign a role; whether that is new."""
        rule = self._rules["release"]
        found = roles.delegation(role, rule)
        if self._after_delegations.get(role) == found:
            return False
        if not rule.keys:
            raise KeysError("there is no key for release", hint="A new channel needs it.")
        if role in self._delegations and role not in self._after_delegations:
            self._notes.append(f"{role} is offered on: its withdrawal, which waited, is given up")
        targets = self._targets_draft()
        _delegated(targets)[role] = found
        self._remember_release_keys(targets)
        return True

    def _remember_release_keys(self, targets: Targets) -> None:
        rule = self._rules["release"]
        delegations = cast("Delegations", targets.delegations)
        used = {keyid for each in (delegations.roles or {}).values() for keyid in each.keyids}
        kept = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}
        delegations.keys = kept | {key.keyid: key for key in rule.keys}
        targets.unrecognized_fields[roles.RELEASE_FIELD] = roles.release_field(rule)

    def _last_version(self, role: str) -> int:
        """The highest version of a role that a machine may have seen."""
        published = self._signed[role].version if role in self._signed else 0
        if role == "root":
            return published
        if role in ONLINE:
            return max(published, self._floor.timestamp if role == "timestamp" else self._floor.snapshot)
        snapshot = self._signed.get("snapshot")
        pinned = snapshot.meta.get(f"{role}.json") if isinstance(snapshot, Snapshot) else None
        return max(published, self._floor.meta.get(f"{role}.json", 0), pinned.version if pinned else 0)

    def _next_version(self, role: str, *, room: bool = False) -> int:
        last = self._last_version(role)
        # What was signed and given up stays signed: what is to take its place must be above it.
        if role != "root" and role not in self._unchanged:
            last = max(last, self._spent.get(role, 0))
        # A new root follows the last one by one. Where nothing is published, nothing is renewed meanwhile.
        return last + (_ROOM if room and last and role != "root" else 1)

    def _demands(self, role: str) -> list[roles.Demand]:
        """The rules that the signatures of a draft must meet."""
        if role not in TOP:  # a release to be withdrawn is signed as long as it is offered
            offered = role in self._after_delegations
            return [roles.demand(role, self._after_targets if offered else self._targets)]
        found = [roles.demand(role, self._after_root)]
        if "root" in self._drafts and "root" in self._signed:
            # Machines that trust the last root must believe the next one. Other roles are signed for both
            # roots, so that a publication may be interrupted between the two.
            found.append(roles.demand_of_previous(role, self._root))
        return found

    def _can_sign(self, role: str, delegators: Iterable[Root | Targets]) -> bool:
        at_hand = {signer.public_key.keyid for signer in self._keys[roles.kind(role)]}
        rules = [roles.rule_of(delegator, role) for delegator in delegators]
        return all(len(at_hand & set(rule.keyids)) >= rule.threshold for rule in rules)

    @property
    def _after_root(self) -> Root:
        return cast("Root", self._drafts.get("root") or self._signed["root"])

    @property
    def _after_targets(self) -> Targets:
        return cast("Targets", self._drafts.get("targets") or self._signed["targets"])

    @property
    def _after_delegations(self) -> dict[str, DelegatedRole]:
        found = self._after_targets.delegations
        return found.roles or {} if found else {}

    def _time(self) -> datetime:
        return self._now or datetime.now(UTC)

    def _until(self, days: float) -> datetime:
        return (self._time() + timedelta(days=days)).replace(microsecond=0)


def _delegated(targets: Targets) -> dict[str, DelegatedRole]:
    """Who may sign which release, to change."""
    return cast("dict[str, DelegatedRole]", cast("Delegations", targets.delegations).roles)
