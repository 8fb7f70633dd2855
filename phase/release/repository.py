"""A repository of releases on disk: a static tree that any web server can serve.

    metadata/N.root.json N.snapshot.json N.targets.json N.{channel}-{arch}.json timestamp.json root.json
    blobs/sha256/{hex}
    targets/{channel}/{arch}/{hex}.{name}      the blobs again, as other TUF clients ask for them

Whoever reads while it is published, and whoever finds it after a power cut in the middle, sees the
old releases or the new: files with a version in their name come first, `timestamp.json` last.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, cast

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from phase import arch as arches
from phase import files
from phase.release import blobs, roles, staging
from phase.release.errors import KeysError, RepositoryError
from phase.release.keys import ReleaseKeys, add_signature
from phase.release.manifest import (
    CHUNK_SIZE,
    FIELD,
    Manifest,
    check_cmdline,
    check_name,
    check_release,
    role_name,
    split_role,
)
from phase.release.roles import TOP, Expiry, Lack, Rule
from phase.release.tree import AnyRole, Tree

#: Days that a signature may hold beyond its usual time before the clock that it was made by was wrong.
_SLACK_DAYS = 1.0


class Repository(Tree):
    """Releases, and the keys at hand to sign them; `create` or `open` one.

    Nothing is signed, and nothing seen by clients, before `publish`.
    """

    def __init__(
        self, directory: Path, keys: ReleaseKeys | None, expiry: Expiry | None, now: datetime | None
    ) -> None:
        super().__init__(directory)
        self._keys = keys or ReleaseKeys({})
        self._expiry = expiry or Expiry()
        self._now = now
        #: Changed roles with the signatures there are; their version is raised already.
        self._staged: dict[str, Metadata[Any]] = {}
        self._rules: dict[str, Rule] = {}
        #: The root clients have, while its successor is not published yet.
        self._before: Root | None = None

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        keys: ReleaseKeys,
        rules: Mapping[str, Rule] | None = None,
        expiry: Expiry | None = None,
        now: datetime | None = None,
    ) -> Self:
        """Begin a new repository.

        Args:
            directory: where; must hold no repository yet.
            keys: signers at hand.
            rules: whose signatures each role needs; more than half of `keys` when left out.
            expiry: for how long signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is one already.
            KeysError: a role has no key.
        """
        for begun in (Path("metadata/timestamp.json"), Path(staging.PLACE, "root.json")):
            if (directory / begun).exists():
                raise RepositoryError(
                    f"{directory} holds a repository already", hint="Open it, or choose another."
                )
        repository = cls(directory, keys, expiry, now)
        found = dict(rules or roles.rules(keys))
        roles.check(found)
        repository._rules = found
        repository._set("root", roles.root(found))
        delegations = Delegations({key.keyid: key for key in found["release"].keys}, {})
        field = {roles.RELEASE_FIELD: roles.release_field(found["release"])}
        repository._set("targets", Targets(delegations=delegations, unrecognized_fields=field))
        repository._set("snapshot", Snapshot())
        repository._set("timestamp", Timestamp())
        return repository

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        keys: ReleaseKeys | None = None,
        expiry: Expiry | None = None,
        now: datetime | None = None,
        resume: bool = True,
    ) -> Self:
        """Open a published repository, or the part of one that a machine serves.

        Args:
            directory: where it is.
            keys: needed to change it.
            resume: go on with what waits for signatures; without, it goes on waiting.
            expiry: for how long new signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is none, or it is damaged.
        """
        repository = cls(directory, keys, expiry, now)
        staged = staging.load(directory / staging.PLACE) if resume else {}
        if not (directory / "metadata/timestamp.json").exists() and {"root", "targets"} <= set(staged):
            repository._set("snapshot", Snapshot())
            repository._set("timestamp", Timestamp())
            repository._take_up(staged)
            return repository
        repository._load_all()
        repository._take_up(staged)
        return repository

    def _take_up(self, staged: Mapping[str, Metadata[Any]]) -> None:
        """Go on with what waits for signatures, unless it was published meanwhile."""
        for role, metadata in staged.items():
            published = self._signed.get(role)
            if metadata.signed.version != (published.version + 1 if published else 1):
                continue
            if role == "root" and published is not None:
                self._before = cast("Root", published)
            self._signed[role] = metadata.signed
            self._staged[role] = metadata
            self._changed.add(role)
        self._rules = roles.read_rules(self._root, self._targets)

    def add(
        self,
        channel: str,
        arch: str,
        artifacts: Mapping[str, blobs.Source],
        *,
        cmdline: str = "",
        release: str,
        expires: datetime | None = None,
    ) -> None:
        """Make these files the release of a channel and architecture, from the next `publish` on.

        Args:
            channel: for example `stable`.
            arch: any usual name.
            artifacts: name to file; a `kernel` at least. They are copied.
            cmdline: kernel command line to sign.
            release: version for people.
            expires: UTC; by `Expiry` when left out.

        Raises:
            ManifestError: a name, the command line or the version cannot be signed.
            RepositoryError: a file cannot be read or stored.
        """
        arch = arches.canonical(arch)
        role = role_name(channel, arch)
        facts = {
            "channel": channel,
            "arch": arch,
            "release": check_release(release),
            "cmdline": check_cmdline(cmdline),
        }
        targets = {}
        for name, path in sorted(artifacts.items()):
            hashed = blobs.store(self.directory / blobs.PLACE, path)
            target = f"{channel}/{arch}/{check_name(name)}"
            extra = {"custom": {"phase": {"chunk_size": CHUNK_SIZE, "chunks": list(hashed.chunks)}}}
            targets[target] = TargetFile(hashed.length, {"sha256": hashed.sha256}, target, extra)
        self._put(role, Targets(targets=targets, unrecognized_fields={FIELD: facts}), expires)

    def promote(self, channel: str, to: str, arch: str, *, expires: datetime | None = None) -> None:
        """Make the release of one channel that of another, from the next `publish` on: the same bytes.

        Args:
            channel: where it is, published: for example `testing`.
            to: where it goes: for example `stable`.
            arch: any usual name.
            expires: UTC; by `Expiry` when left out.

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

    def _put(self, role: str, signed: Targets, expires: datetime | None) -> None:
        """Take a role's new content."""
        old = self._signed.get(role)
        signed.version = old.version if old else 1
        signed.expires = expires or self._until(self._expiry.release)
        Manifest.from_role(role, signed)  # what clients would refuse is not signed
        self._signed[role] = signed
        self._change(role)
        self._delegate(role)

    def renew(self) -> list[str]:
        """Give what expires soon its time anew, where the keys are at hand; `publish` signs it.

        Returns:
            The roles: those with less than half of their usual time left.
        """
        renewed = []
        for role, signed in list(self._signed.items()):
            days = self._expiry.days(role)
            if signed.expires < self._until(days / 2) and self._keys[roles.kind(role)]:
                if role == "root":
                    self.rotate(ReleaseKeys({}), rules=self._rules)
                else:
                    signed.expires = self._until(days)
                    self._change(role)
                renewed.append(role)
        return renewed

    def renew_at(self) -> datetime:
        """When `renew` has something to do for the first time, UTC."""
        return min(
            signed.expires - timedelta(days=self._expiry.days(role) / 2)
            for role, signed in self._signed.items()
        )

    def shorten(self) -> list[str]:
        """Give the timestamp and the snapshot their usual time, where they hold for longer than that.

        They were signed while the clock was wrong. The timestamp says what is the newest: one that holds for
        years lets anybody keep clients on old releases for years. `publish` signs them.

        Returns:
            The roles.
        """
        found = []
        for role in ("snapshot", "timestamp"):
            if self._signed[role].expires > self._until(self._expiry.days(role) + _SLACK_DAYS):
                self._signed[role].expires = self._until(self._expiry.days(role))
                self._change(role)
                found.append(role)
        return found

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
        if self._before is None:
            self._before = self._root
        after = roles.root(found)
        after.version = self._root.version
        after.expires = self._until(self._expiry.root)
        self._keys |= keys
        self._rules = found
        self._signed["root"] = after
        self._changed |= {"snapshot", "timestamp"}
        self._change("root")
        self._change("targets")
        for channel, arch in self.releases():
            role = role_name(channel, arch)
            if self._delegate(role) and role in self._signed:
                self._change(role)
        self._remember_release_keys()

    @property
    def rules(self) -> dict[str, Rule]:
        """Whose signatures each role needs."""
        return dict(self._rules)

    @property
    def staged(self) -> dict[str, Metadata[Any]]:
        """What waits for signatures, by role."""
        return dict(self._staged)

    def stage(self) -> list[Lack]:
        """Sign what has changed with the keys at hand, and keep it until the others have signed.

        Returns:
            What is missing still; if nothing is, `publish`.

        Raises:
            RepositoryError: it cannot be written.
        """
        self._sign_at_hand()
        staging.save(self.directory / staging.PLACE, self._staged)
        return self.lacks()

    def collect(self, source: Path) -> None:
        """Take signatures that come back.

        Args:
            source: a directory with `{role}.json`, as `stage` made them and others have signed them.

        Raises:
            RepositoryError: something there is not what waits here.
        """
        for role, metadata in staging.load(source).items():
            ours = self._staged.get(role)
            if ours is None or ours.signed_bytes != metadata.signed_bytes:
                raise RepositoryError(
                    f"{source} holds another {role} than the one that waits here",
                    hint="Export again what is to be signed.",
                )
            ours.signatures.update(
                {keyid: each for keyid, each in metadata.signatures.items() if keyid not in ours.signatures}
            )

    def lacks(self) -> list[Lack]:
        """The changed roles that too few have signed, and who has not."""
        found = []
        for role, metadata in self._staged.items():
            # The next root must be believed by who has the last one; and what both vouch for lets a
            # publication be interrupted between the two.
            before = self._before if role in TOP else None
            by: list[tuple[str, Root | Targets | None]]
            by = [(role, self._root if role in TOP else self._targets)]
            by += [("the root before" if role == "root" else f"{role} by the root before", before)] * bool(
                before
            )
            missing = (roles.lack(role, name, delegator, metadata) for name, delegator in by if delegator)
            found += [each for each in missing if each]
        return found

    def _sign_at_hand(self) -> None:
        for role in sorted(self._changed & {"root", "targets"} | self._changed - set(TOP)):
            metadata = self._staged.get(role)
            if metadata is None:
                signed = self._signed[role]
                if role in self._bytes:
                    signed.version += 1
                metadata = self._staged[role] = Metadata(signed)
            self._add_signatures(role, metadata)

    def _add_signatures(self, role: str, metadata: Metadata[Any]) -> None:
        wanted = set(self._root.roles[role].keyids if role in TOP else self._delegations[role].keyids)
        if role in TOP and self._before is not None:
            wanted |= set(self._before.roles[role].keyids)
        for signer in self._keys[roles.kind(role)]:
            if signer.public_key.keyid in wanted:
                add_signature(metadata, signer)

    def publish(self, *, gap: bool = False) -> None:
        """Sign what has changed, a new snapshot and timestamp, and put all in place at once.

        Args:
            gap: after keys were lost or revoked, publish although the old ones do not sign what
                they used to: a client that asks in just that moment has to ask again.

        Raises:
            KeysError: too few keys at hand for a role that must be signed.
            RepositoryError: it cannot be written.
        """
        self._sign_at_hand()
        self._require(self.lacks(), gap)
        signed = sorted(self._changed - set(TOP))
        if "targets" in self._changed:
            signed.append("targets")
        missing = [role for role in self._delegations if role not in self._signed]
        if missing and signed:
            raise RepositoryError(
                f"metadata of {', '.join(missing)} is not here", hint="Use the whole repository."
            )
        for role in signed:
            self._bytes[role] = self._signed_well(role).to_bytes()
            self._snapshot.meta[f"{role}.json"] = self._pin(role)
        if signed or "snapshot" in self._changed:
            self._snapshot.expires = self._until(self._expiry.snapshot)
            signed.append("snapshot")
            self._sign_online("snapshot", gap)
        self._timestamp.snapshot_meta = self._pin("snapshot")
        self._timestamp.expires = self._until(self._expiry.timestamp)
        self._sign_online("timestamp", gap)
        names = [f"{self._signed[role].version}.{role}.json" for role in signed]
        pending = dict(zip(names, (self._bytes[role] for role in signed), strict=True))
        pending["timestamp.json"] = self._bytes["timestamp"]
        if "root" in self._changed:
            data = self._bytes["root"] = self._signed_well("root").to_bytes()
            root = {f"{self._root.version}.root.json": data, "root.json": data}
            # The first root is there before anything needs it. A later one comes last: by then
            # old and new keys have signed all the rest, so it is believed by either root.
            pending = root | pending if self._root.version == 1 else pending | root
        try:
            self._link_targets()
            (self.directory / "metadata").mkdir(parents=True, exist_ok=True)
            files.sync_directory(self.directory)
            for name, data in pending.items():
                files.write(self.directory / "metadata" / name, data)
        except OSError as error:
            raise RepositoryError(f"{self.directory} cannot be written: {error.strerror}") from error
        # What is left of it after a power cut has a version that is published, and is ignored.
        staging.drop(self.directory / staging.PLACE, self._staged)
        self._changed.clear()
        self._staged.clear()
        self._before = None

    def _change(self, role: str) -> None:
        """Note that a role must be signed anew; what has signed it so far no longer counts."""
        if self._staged.pop(role, None) is not None and role in self._bytes:
            self._signed[role].version = self._read(role, self._bytes[role]).version
        self._changed.add(role)

    def _delegate(self, role: str) -> bool:
        """Let the release keys sign a role; whether that is new."""
        rule = self._rules["release"]
        delegations = cast("Delegations", self._targets.delegations)
        delegated = cast("dict[str, DelegatedRole]", delegations.roles)
        channel, arch = split_role(role)
        found = DelegatedRole(
            role,
            [key.keyid for key in rule.keys],
            rule.threshold,
            terminating=True,
            paths=[f"{channel}/{arch}/*"],
        )
        if delegated.get(role) == found:
            return False
        if not rule.keys:
            raise KeysError("there is no key for release", hint="A new channel needs it.")
        delegated[role] = found
        self._remember_release_keys()
        self._targets.expires = self._until(self._expiry.targets)
        self._change("targets")
        return True

    def _remember_release_keys(self) -> None:
        rule = self._rules["release"]
        delegations = cast("Delegations", self._targets.delegations)
        used = {keyid for each in self._delegations.values() for keyid in each.keyids}
        kept = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}
        delegations.keys = kept | {key.keyid: key for key in rule.keys}
        self._targets.unrecognized_fields[roles.RELEASE_FIELD] = roles.release_field(rule)

    def _signed_well(self, role: str) -> Metadata[Any]:
        """A staged role, without signatures that are none of its keys'."""
        metadata = self._staged[role]
        good = set()
        delegators = (self._root, self._before) if role in TOP else (self._targets,)
        for delegator in delegators:
            if delegator is not None:
                result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
                good |= set(result.signed)
        for keyid in set(metadata.signatures) - good:
            del metadata.signatures[keyid]
        return metadata

    def _sign_online(self, role: str, gap: bool) -> None:
        """Raise the version of snapshot or timestamp and sign it: its keys are always at hand."""
        signed = self._signed[role]
        if role in self._bytes:
            signed.version += 1
        metadata: Metadata[Any] = Metadata(signed)
        self._add_signatures(role, metadata)
        before = self._before
        by = [(role, self._root)] + ([(f"{role} by the root before", before)] if before else [])
        lacks = (roles.lack(role, name, delegator, metadata) for name, delegator in by)
        self._require([each for each in lacks if each], gap)
        self._bytes[role] = metadata.to_bytes()

    def _require(self, lacks: list[Lack], gap: bool) -> None:
        for each in lacks:
            if gap and each.role.endswith(" by the root before"):
                continue
            raise KeysError(
                f"{len(each.signed)} of the keys of {each.role} are at hand, {each.threshold} must sign",
                hint="Give the directory that holds them.",
            )

    def _pin(self, role: str) -> MetaFile:
        data = self._bytes[role]
        return MetaFile(self._signed[role].version, len(data), {"sha256": sha256(data).hexdigest()})

    def _link_targets(self) -> None:
        """Give artifacts the paths that other TUF clients ask for: new ones, and what a power cut took."""
        linked = set()
        for channel, arch in self.releases():
            role = role_name(channel, arch)
            if role not in self._signed:
                continue
            for artifact in self.manifest(channel, arch).artifacts.values():
                link = self.directory / "targets" / channel / arch / f"{artifact.sha256}.{artifact.name}"
                blob = self.directory / blobs.PLACE / artifact.sha256
                # Whoever only renews signatures needs no artifacts.
                if link.exists() or not (role in self._changed or blob.exists()):
                    continue
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(blob, link)
                linked.add(link.parent)
        for directory in linked:
            files.sync_up(directory, self.directory)

    def _set(self, role: str, signed: AnyRole) -> None:
        signed.expires = self._until(self._expiry.days(role))
        self._signed[role] = signed
        self._changed.add(role)

    def _until(self, days: float) -> datetime:
        return ((self._now or datetime.now(UTC)) + timedelta(days=days)).replace(microsecond=0)
