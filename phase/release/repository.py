"""A repository of releases on disk: a static tree that any web server can serve.

    metadata/N.root.json N.snapshot.json N.targets.json N.{channel}-{arch}.json timestamp.json root.json
    blobs/sha256/{hex}
    targets/{channel}/{arch}/{hex}.{name}      the blobs again, as other TUF clients ask for them

Whoever reads while it is published, and whoever finds it after a power cut in the middle, sees the
old releases or the new: files with a version in their name come first, `timestamp.json` last.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from phase import arch as arches
from phase import files
from phase.release import blobs, roles
from phase.release.errors import KeysError, RepositoryError
from phase.release.keys import ROLES, NaclSigner, ReleaseKeys
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
from phase.release.roles import TOP, Expiry
from phase.trust import wire
from phase.trust.errors import TrustError

_Any = Root | Timestamp | Snapshot | Targets
_KINDS: dict[str, type[Any]] = {"root": Root, "timestamp": Timestamp, "snapshot": Snapshot}
_MAX_METADATA = 5_000_000


class Entry(NamedTuple):
    """A file of a repository.

    Attributes:
        path: relative to the repository, with slashes.
        file: where it is.
    """

    path: str
    file: Path


class Repository:
    """Releases, and the keys at hand to sign them; `create` or `open` one.

    Nothing is signed, and nothing seen by clients, before `publish`.
    """

    def __init__(
        self, directory: Path, keys: ReleaseKeys | None, expiry: Expiry | None, now: datetime | None
    ) -> None:
        self.directory = directory
        self._keys = keys or ReleaseKeys({})
        self._expiry = expiry or Expiry()
        self._now = now
        self._signed: dict[str, _Any] = {}
        #: The bytes on disk, or about to be: what hashes upward are made of.
        self._bytes: dict[str, bytes] = {}
        self._changed: set[str] = set()
        #: Signers a rotation replaces: they sign once more, beside the new.
        self._leaving: dict[str, tuple[NaclSigner, ...]] = {}
        self._root_before: Role | None = None

    @classmethod
    def create(
        cls, directory: Path, *, keys: ReleaseKeys, expiry: Expiry | None = None, now: datetime | None = None
    ) -> Self:
        """Begin a new repository.

        Args:
            directory: where; must hold no repository yet.
            keys: signers of every role.
            expiry: for how long signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is one already.
            KeysError: a role has no key.
        """
        if (directory / "metadata" / "timestamp.json").exists():
            raise RepositoryError(
                f"{directory} holds a repository already", hint="Open it, or choose another."
            )
        repository = cls(directory, keys, expiry, now)
        for role in ROLES:
            if not keys[role]:
                raise KeysError(f"there is no key for {role}", hint="A new repository needs every role's.")
        repository._set("root", roles.root(keys))
        repository._set("targets", Targets(delegations=Delegations({}, {})))
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
    ) -> Self:
        """Open a published repository, or the part of one that a machine serves.

        Args:
            directory: where it is.
            keys: needed to change it.
            expiry: for how long new signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is none, or it is damaged.
        """
        repository = cls(directory, keys, expiry, now)
        repository._load("timestamp", "timestamp.json")
        # Not root.json: a publication that was interrupted may have come only as far as this.
        repository._load("root", _newest_root(directory / "metadata"))
        repository._load("snapshot", f"{repository._timestamp.snapshot_meta.version}.snapshot.json")
        for file, meta in repository._snapshot.meta.items():
            role, name = file.removesuffix(".json"), f"{meta.version}.{file}"
            # A machine that booted serves its own release; the others of the snapshot are not there.
            if role == "targets" or (directory / "metadata" / name).exists():
                repository._load(role, name)
        return repository

    def add(
        self,
        channel: str,
        arch: str,
        artifacts: Mapping[str, Path],
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
        signed = Targets(targets=targets, unrecognized_fields={FIELD: facts})
        old = self._signed.get(role)
        signed.version = old.version if old else 1
        signed.expires = expires or self._until(self._expiry.release)
        Manifest.from_role(role, signed)  # what clients would refuse is not signed
        self._signed[role] = signed
        self._changed.add(role)
        self._delegate(role, channel, arch)

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
                    self.rotate(self._keys)
                else:
                    signed.expires = self._until(days)
                    self._changed.add(role)
                renewed.append(role)
        return renewed

    def rotate(self, keys: ReleaseKeys) -> None:
        """Replace keys, from the next `publish` on; clients follow from any root they trust.

        Args:
            keys: the new signers of every role; roles may keep theirs. The old ones this repository
                was opened with sign once more: the next root with the old root keys, so that it is
                believed, and the rest so that a client sees no moment between two sets of keys.

        Raises:
            KeysError: a role has no key.
        """
        for role in ROLES:
            if not keys[role]:
                raise KeysError(f"there is no key for {role}", hint="A rotation names every role's keys.")
        stays = {role: {signer.public_hex for signer in keys[role]} for role in TOP}
        self._leaving = {
            role: tuple(old for old in self._keys[role] if old.public_hex not in stays[role]) for role in TOP
        }
        before = self._root
        self._root_before = before.roles["root"]
        after = roles.root(keys)
        after.version = before.version
        after.expires = self._until(self._expiry.root)
        self._keys = keys
        self._signed["root"] = after
        self._changed |= {"root", "targets", "snapshot", "timestamp"}
        for channel, arch in self.releases():
            role = role_name(channel, arch)
            if self._delegate(role, channel, arch) and role in self._signed:
                self._changed.add(role)

    def publish(self) -> None:
        """Sign what has changed, a new snapshot and timestamp, and put all in place at once.

        Raises:
            KeysError: too few keys at hand for a role that must be signed.
            RepositoryError: it cannot be written.
        """
        signed = sorted(self._changed - set(TOP))
        if "targets" in self._changed:
            signed.append("targets")
        missing = [role for role in self._delegations if role not in self._signed]
        if missing and signed:
            raise RepositoryError(
                f"metadata of {', '.join(missing)} is not here", hint="Use the whole repository."
            )
        if signed or "snapshot" in self._changed:
            self._snapshot.expires = self._until(self._expiry.snapshot)
        for role in signed:
            self._sign(role)
            self._snapshot.meta[f"{role}.json"] = self._pin(role)
        if signed or "snapshot" in self._changed:
            signed.append("snapshot")
            self._sign("snapshot")
        self._timestamp.snapshot_meta = self._pin("snapshot")
        self._timestamp.expires = self._until(self._expiry.timestamp)
        self._sign("timestamp")
        names = [f"{self._signed[role].version}.{role}.json" for role in signed]
        pending = dict(zip(names, (self._bytes[role] for role in signed), strict=True))
        pending["timestamp.json"] = self._bytes["timestamp"]
        if "root" in self._changed:
            self._sign("root")
            root = {f"{self._root.version}.root.json": self._bytes["root"], "root.json": self._bytes["root"]}
            # The first root is there before anything needs it. A later one comes last: by then
            # old and new keys have signed all the rest, so it is believed by either root.
            pending = root | pending if self._root.version == 1 else pending | root
        try:
            self._link_targets()
            for name, data in pending.items():
                (self.directory / "metadata").mkdir(parents=True, exist_ok=True)
                files.write(self.directory / "metadata" / name, data)
        except OSError as error:
            raise RepositoryError(f"{self.directory} cannot be written: {error.strerror}") from error
        self._changed.clear()
        self._leaving = {}
        self._root_before = None

    def releases(self) -> list[tuple[str, str]]:
        """Channel and architecture of every release."""
        return [split_role(role) for role in self._delegations]

    def manifest(self, channel: str, arch: str) -> Manifest:
        """The release of a channel and architecture.

        Raises:
            RepositoryError: there is none here.
        """
        role = role_name(channel, arches.canonical(arch))
        signed = self._signed.get(role)
        if not isinstance(signed, Targets):
            raise RepositoryError(f"{self.directory} has no release of {channel}/{arch}")
        return Manifest.from_role(role, signed)

    @property
    def expires(self) -> datetime:
        """When the first of the signatures ends, UTC."""
        return min(signed.expires for signed in self._signed.values())

    @property
    def timestamp_expires(self) -> datetime:
        """When the timestamp's signature ends, UTC: soon, by its nature."""
        return self._timestamp.expires

    def metadata(self, only: Iterable[tuple[str, str]] | None = None) -> dict[str, bytes]:
        """What a client needs to verify releases.

        Args:
            only: channels and architectures; all when left out.

        Returns:
            File name to bytes: every root, the timestamp, and what it vouches for.

        Raises:
            RepositoryError: not published yet, or no such release.
        """
        return {entry.file.name: _read(entry.file) for entry in self._metadata_entries(only)}

    def subset(self, only: Iterable[tuple[str, str]]) -> list[Entry]:
        """The files that serve some releases and no others.

        Args:
            only: channels and architectures.

        Returns:
            Metadata, then blobs; each once.

        Raises:
            RepositoryError: not published yet, or no such release.
        """
        wanted = list(only)
        hashes = {
            artifact.sha256
            for channel, arch in wanted
            for artifact in self.manifest(channel, arch).artifacts.values()
        }
        place = self.directory / blobs.PLACE
        return [
            *self._metadata_entries(wanted),
            *(Entry(f"{blobs.PLACE}/{digest}", place / digest) for digest in sorted(hashes)),
        ]

    def _metadata_entries(self, only: Iterable[tuple[str, str]] | None) -> list[Entry]:
        directory = self.directory / "metadata"
        if self._changed or "timestamp" not in self._bytes:
            raise RepositoryError(f"{self.directory} has unpublished changes", hint="Publish first.")
        if only is None:
            wanted = [role for role in self._delegations if role in self._signed]
        else:
            wanted = [role_name(channel, arches.canonical(arch)) for channel, arch in only]
        absent = [role for role in wanted if role not in self._signed]
        if absent:
            raise RepositoryError(f"{self.directory} has no release of {', '.join(absent)}")
        names = [path.name for path in sorted(directory.glob("*.root.json"))]
        names += ["root.json", "timestamp.json"]
        names += [f"{self._signed[role].version}.{role}.json" for role in ("snapshot", "targets", *wanted)]
        return [Entry(f"metadata/{name}", directory / name) for name in names]

    def _delegate(self, role: str, channel: str, arch: str) -> bool:
        """Let the release keys sign a role; whether that is new."""
        delegations = self._targets.delegations
        assert delegations is not None  # noqa: S101  # _load and create see to it
        assert delegations.roles is not None  # noqa: S101
        signers = self._keys["release"]
        found = DelegatedRole(
            role,
            [signer.public_key.keyid for signer in signers],
            self._keys.threshold("release"),
            terminating=True,
            paths=[f"{channel}/{arch}/*"],
        )
        if role in delegations.roles and (not signers or delegations.roles[role] == found):
            return False
        if not signers:
            raise KeysError("there is no key for release", hint="A new channel needs it.")
        delegations.roles[role] = found
        delegations.keys.update({signer.public_key.keyid: signer.public_key for signer in signers})
        used = {keyid for each in delegations.roles.values() for keyid in each.keyids}
        delegations.keys = {keyid: key for keyid, key in delegations.keys.items() if keyid in used}
        self._changed.add("targets")
        self._targets.expires = self._until(self._expiry.targets)
        return True

    def _sign(self, role: str) -> None:
        """Raise a role's version, sign it with every key of it at hand, keep the bytes."""
        rule: Role = self._root.roles[role] if role in TOP else self._delegations[role]
        ours = [s for s in self._keys[roles.kind(role)] if s.public_key.keyid in rule.keyids]
        roles.check_enough(role, ours, rule)
        leaving = self._leaving.get(role, ())
        if role == "root" and self._root_before is not None:
            roles.check_enough("the root before", [*ours, *leaving], self._root_before)
        signed = self._signed[role]
        if role in self._bytes:
            signed.version += 1
        metadata: Metadata[Any] = Metadata(signed)
        for signer in (*ours, *leaving):
            metadata.sign(signer, append=True)
        self._bytes[role] = metadata.to_bytes()

    def _pin(self, role: str) -> MetaFile:
        data = self._bytes[role]
        return MetaFile(self._signed[role].version, len(data), {"sha256": sha256(data).hexdigest()})

    def _link_targets(self) -> None:
        for channel, arch in self.releases():
            if role_name(channel, arch) not in self._changed:
                continue
            for artifact in self.manifest(channel, arch).artifacts.values():
                link = self.directory / "targets" / channel / arch / f"{artifact.sha256}.{artifact.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    os.link(self.directory / blobs.PLACE / artifact.sha256, link)

    def _set(self, role: str, signed: _Any) -> None:
        signed.expires = self._until(self._expiry.days(role))
        self._signed[role] = signed
        self._changed.add(role)

    def _load(self, role: str, name: str) -> None:
        data = _read(self.directory / "metadata" / name)
        try:
            signed, _ = wire.read(data, _KINDS.get(role, Targets), name=name, max_bytes=_MAX_METADATA)
        except TrustError as error:
            raise RepositoryError(f"{self.directory} is damaged: {error.what}") from error
        if role == "targets" and (signed.delegations is None or signed.delegations.roles is None):
            raise RepositoryError(f"{self.directory} is no repository of Phase: {name} delegates to no one")
        self._signed[role] = signed
        self._bytes[role] = data

    def _until(self, days: float) -> datetime:
        return ((self._now or datetime.now(UTC)) + timedelta(days=days)).replace(microsecond=0)

    @property
    def _root(self) -> Root:
        return cast("Root", self._signed["root"])

    @property
    def _timestamp(self) -> Timestamp:
        return cast("Timestamp", self._signed["timestamp"])

    @property
    def _snapshot(self) -> Snapshot:
        return cast("Snapshot", self._signed["snapshot"])

    @property
    def _targets(self) -> Targets:
        return cast("Targets", self._signed["targets"])

    @property
    def _delegations(self) -> dict[str, DelegatedRole]:
        found = self._targets.delegations
        return found.roles or {} if found else {}


def _newest_root(directory: Path) -> str:
    versions = [path.name.partition(".")[0] for path in directory.glob("*.root.json")]
    return f"{max((int(v) for v in versions if v.isdecimal()), default=1)}.root.json"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(_MAX_METADATA + 1)
    except OSError as error:
        raise RepositoryError(
            f"{path} cannot be read: {error.strerror}", hint="Publish the release again, or copy it whole."
        ) from error
