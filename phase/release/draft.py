"""Drafts: changes to the roles of a repository that are not published yet, and who must sign them."""

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
    FORMAT,
    Manifest,
    check_cmdline,
    check_name,
    check_release,
    role_name,
)
from phase.release.roles import ONLINE, TOP, Rule
from phase.release.tree import AnyRole, Tree
from phase.trust import Floor

#: A signature that holds for this many days more than its usual time was made by a wrong clock.
_SLACK_DAYS = 1.0
#: Versions left free below a draft that waits for signatures: published roles are renewed with them
#: meanwhile.
_ROOM = 16


class Draft(Tree):
    """A published repository, and the changes to it; see `phase.release.repository`, which publishes them.

    Args:
        directory: of the repository.
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
        #: The new content of roles. Their published content stays in `_signed`.
        self._drafts: dict[str, AnyRole] = {}
        #: Drafts that have their version, with the signatures so far.
        self._waiting: dict[str, Metadata[Any]] = {}
        #: Drafts of others, which waited when the repository was opened: only `sign` signs them.
        self._inherited: set[str] = set()
        #: Roles whose staged files this object removes when they no longer wait.
        self._resumed: set[str] = set()
        #: Versions published last, also before a loss: new versions are above these.
        self._floor = Floor()
        #: The highest versions that keys at hand have signed, also of drafts that were given up.
        self._spent: Mapping[str, int] = {}
        #: Drafts with the same content as the published role.
        self._unchanged: set[str] = set()
        #: Snapshot and timestamp, if they were signed while the clock was ahead.
        self._shortened: set[str] = set()
        #: The published roles were signed while the clock was ahead: new ones may end sooner.
        self.clock_was_ahead = False
        self._rules: dict[str, Rule] = {}
        self._notes: list[str] = []
        #: The first root, from which the published metadata is verified.
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
        fall_back: bool = False,
    ) -> None:
        """Make these files the release of a channel and architecture, from the next `publish` on.

        Args:
            channel: for example `stable`.
            arch: any usual name.
            artifacts: name to file; a `kernel` at least. They are copied.
            cmdline: kernel command line to sign.
            release: version for people.
            expires: UTC; from `days` when left out. A renewed release holds for as long again.
            days: for how long it holds; from `Expiry` when left out.
            fall_back: name the release that is published now as the one before: machines that keep releases
                go back to it where this one does not come up.

        Raises:
            ManifestError: a name, the command line or the version cannot be signed.
            RepositoryError: a file cannot be read or stored.
        """
        arch = arches.canonical(arch)
        role = role_name(channel, arch)
        facts: dict[str, Any] = {
            "format": FORMAT,
            "channel": channel,
            "arch": arch,
            "release": check_release(release),
            "cmdline": check_cmdline(cmdline),
        }
        if fall_back:
            facts["before"] = self._described(role)
        if days is not None:
            facts[lifetimes.FIELD] = max(1, round(days * 86_400))
        elif expires is not None:
            facts[lifetimes.FIELD] = max(1, int((expires - self._time()).total_seconds()))
        targets = {}
        for name, path in sorted(artifacts.items()):
            hashed = blobs.store(self.directory / blobs.PLACE, path)
            target = f"{channel}/{arch}/{check_name(name)}"
            lists = {"chunk_size": CHUNK_SIZE, "chunks": list(hashed.chunks), "cut": hashed.cut}
            extra = {"custom": {"phase": lists}}
            targets[target] = TargetFile(hashed.length, {"sha256": hashed.sha256}, target, extra)
        self._put(role, Targets(targets=targets, unrecognized_fields={FIELD: facts}), expires)

    def _described(self, role: str) -> dict[str, Any]:
        """A published release, as the manifest after it names it."""
        if role not in self._signed:
            raise RepositoryError(
                f"there is no release of {role} to fall back to", hint="Publish the first one without."
            )
        source = cast("Targets", self._signed[role])
        artifacts = {}
        for name, artifact in Manifest.from_role(role, source).artifacts.items():
            lists = (source.targets[artifact.path].custom or {})["phase"]
            if "cut" not in lists:
                raise RepositoryError(
                    f"the release of {role} was added by an older Phase, and cannot be fallen back to",
                    hint="Add its files once more, and publish that first.",
                )
            artifacts[name] = {"length": artifact.length, "sha256": artifact.sha256, "cut": lists["cut"]}
        facts = source.unrecognized_fields[FIELD]
        return {"release": facts["release"], "cmdline": facts["cmdline"], "artifacts": artifacts}

    def promote(self, channel: str, to: str, arch: str, *, expires: datetime | None = None) -> None:
        """Publish the release of one channel in another channel too, from the next `publish` on.

        Args:
            channel: the channel that has it, for example `testing`.
            to: the channel that gets it, for example `stable`.
            arch: any usual name.
            expires: UTC; when left out, it holds as long as in its channel.

        Raises:
            ManifestError: `to` is not a channel's name.
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
        """Draft new content of a role."""
        signed.version = 1  # until it is signed
        signed.expires = (expires or self._until(self._days(role, signed))).replace(microsecond=0)
        Manifest.from_role(role, signed)  # do not sign content that clients would refuse
        if role in self._inherited:
            self._notes.append(f"the release of {role} that waited is given up: this one takes its place")
        self._draft(role, signed)
        self._inherited.discard(role)
        self._delegate(role)

    def renew(self, wanted: Collection[str] | None = None) -> list[str]:
        """Draft roles again, unchanged, with their whole time; `publish` signs them.

        Args:
            wanted: roles to renew, also if they do not expire soon or the keys at hand cannot sign them.
                When left out, the roles that have less than half of their usual time left and that these
                keys can sign.

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
        """Give each role that is older than its newest published version a version above that one.

        `publish` signs them.

        Args:
            ahead: go this many versions further.

        Returns:
            The roles, snapshot and timestamp among them; empty if nothing is older.

        Raises:
            RepositoryError: a root is lost, which cannot be replaced.
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
        """The first moment when `renew` has something to do, UTC."""
        return min(
            signed.expires - timedelta(days=self._days(role, signed) / 2)
            for role, signed in self._signed.items()
        )

    def shorten(self) -> list[str]:
        """Give the timestamp and the snapshot their usual time, if they hold for longer than that.

        They were signed while the clock was wrong. The timestamp proves what is the newest: if it holds for
        years, an attacker can keep clients on old releases for years. `publish` signs them.

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
            keys: new signers at hand, beside those that this repository was opened with. The old keys
                sign once more: the next root, so that clients accept it, and the other roles, so that
                clients see no gap between two sets of keys.
            rules: the signatures that each role needs from now on; more than half of `keys` when left out.

        Raises:
            KeysError: a role has no key.
        """
        found = dict(rules or roles.rules(keys))
        roles.check(found)
        self._keys |= keys
        self._rules = found
        known = self._after_targets.unrecognized_fields.get(roles.RELEASE_FIELD)
        fresh = roles.release_field(found["release"]) != known
        root = roles.root(found)
        # The holders of root keys are not asked for keys that the root does not name.
        if root.roles != self._after_root.roles or not fresh:
            self._draft("root", root, self._expiry.root)
        for role in list(self._after_delegations):
            self._delegate(role)
        if fresh:
            self._remember_release_keys(self._targets_draft())

    @property
    def rules(self) -> dict[str, Rule]:
        """The signatures that each role needs, once the waiting drafts are published."""
        return dict(self._rules)

    @property
    def unpublished(self) -> bool:
        """Whether there are drafts."""
        return bool(self._drafts)

    def _draft(self, role: str, signed: AnyRole, days: float | None = None) -> None:
        """Draft a role; the signatures of an earlier draft of it no longer count."""
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
        """Let the release keys sign a role; returns whether that is new."""
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
        # A version that was signed and given up stays signed: the next one must be above it.
        if role != "root" and role not in self._unchanged:
            last = max(last, self._spent.get(role, 0))
        # The versions of roots have no gaps. Before the first publication, nothing is renewed meanwhile.
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
    """The delegations to releases, to change."""
    return cast("dict[str, DelegatedRole]", cast("Delegations", targets.delegations).roles)
