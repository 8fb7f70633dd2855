"""A repository of releases on disk: a static tree that any web server can serve.

    metadata/N.root.json N.snapshot.json N.targets.json N.{channel}-{arch}.json timestamp.json root.json
    blobs/sha256/{hex}
    targets/{channel}/{arch}/{hex}.{name}      the blobs again, as other TUF clients ask for them
    staged/{role}.json                         drafts that wait for signatures
    publishing/                                while files are replaced, see `phase.release.journal`

A client that reads during a publication, or after a power cut in the middle of one, sees the old
releases or the new: files with a version in their name come first, `timestamp.json` last.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self, cast

from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from phase import files
from phase.release import blobs, check, journal, lifetimes, roles, staging
from phase.release.errors import KeysError, ManifestError, RepositoryError
from phase.release.journal import Change
from phase.release.keys import ReleaseKeys
from phase.release.lifetimes import Expiry
from phase.release.manifest import role_name
from phase.release.roles import TOP, Lack, Rule
from phase.release.waiting import Waiting
from phase.trust import Floor, NotFoundError, RollbackError, TrustError
from phase.trust.floor import merged

#: The clock may be behind the one that signed last by this much: two hosts, or a leap.
_BACK = timedelta(hours=1)


def begun(directory: Path) -> Literal["staged", "published"] | None:
    """How far a repository is: `staged` waits for its first signatures; None if there is no repository."""
    if any((directory / "metadata" / name).exists() for name in ("timestamp.json", "1.root.json")):
        return "published"
    return "staged" if (directory / staging.PLACE / "root.json").exists() else None


class Published(NamedTuple):
    """The result of a publication.

    Attributes:
        roles: published with a new version, other than snapshot and timestamp.
        waiting: drafts that were not published, since too few have signed them.
        notes: further facts for the publisher, a line each.
    """

    roles: tuple[str, ...]
    waiting: tuple[Lack, ...]
    notes: tuple[str, ...]


class Repository(Waiting):
    """Releases, and the keys at hand to sign them; `create` or `open` one.

    Changes are drafts until `publish`: before that, nothing is signed, and clients see nothing. `publish`
    puts completely signed drafts in place, if a machine would accept them; otherwise it changes nothing.
    """

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
            directory: of the new repository; it must not hold one yet.
            keys: signers at hand.
            rules: the signatures that each role needs; more than half of `keys` when left out.
            expiry: for how long signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is one already.
            KeysError: a role has no key.
        """
        journal.finish(directory)
        if begun(directory):
            raise RepositoryError(
                f"{directory} holds a repository already", hint="Open it, or choose another."
            )
        repository = cls(directory, keys, expiry, now)
        found = dict(rules or roles.rules(keys))
        roles.check(found)
        repository._rules = found
        repository._draft("root", roles.root(found))
        delegations = Delegations({key.keyid: key for key in found["release"].keys}, {})
        field = {roles.RELEASE_FIELD: roles.release_field(found["release"])}
        repository._draft("targets", Targets(delegations=delegations, unrecognized_fields=field))
        return repository

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        keys: ReleaseKeys | None = None,
        root: bytes | None = None,
        floors: Sequence[Floor] = (),
        spent: Mapping[str, int] = MappingProxyType({}),
        restore: bool = False,
        expiry: Expiry | None = None,
        now: datetime | None = None,
        resume: bool = True,
    ) -> Self:
        """Open a published repository, or the part of one that a machine serves.

        Args:
            directory: of the repository.
            keys: needed to change it. With keys, the published metadata is verified as a machine would,
                except for expiry, since others may write to the directory.
            root: the root to verify from; its own first root when left out. Without keys
                and root it is not verified.
            floors: versions published before, as other places remember them.
            spent: the highest version of each role that was signed before, published or not.
            restore: accept a repository that is older than that; changed roles get versions above.
            resume: load the drafts that wait for signatures; otherwise they stay untouched.
            expiry: for how long new signatures hold.
            now: the time to sign for, UTC; the clock's when left out.

        Raises:
            RepositoryError: there is no repository, it is damaged, or a machine would refuse it.
        """
        repository = cls(directory, keys, expiry, now)
        repository._spent = spent
        if keys is not None:
            journal.finish(directory)
        staged = staging.load(directory / staging.PLACE) if resume else {}
        if begun(directory) == "staged":
            repository._begin_again(staged, root, floors)
        elif keys is None and root is None:
            repository._load_all()
            repository._take_up(staged)
        else:
            repository._load_verified(root, floors, restore=restore)
            repository._take_up(staged)
        return repository

    def _begin_again(
        self, staged: Mapping[str, Metadata[Any]], root: bytes | None, floors: Sequence[Floor]
    ) -> None:
        """Load a repository that waits for its first signatures."""
        if any(floor.timestamp for floor in floors):
            raise RepositoryError(
                f"what these keys have published in {self.directory} is gone",
                hint="If it is lost, see `phase release restore`; else somebody has removed it.",
            )
        if not {"root", "targets"} <= set(staged):
            raise RepositoryError(
                f"{self.directory} is not published yet: it waits for its first signatures",
                hint="See `phase release sign`.",
            )
        if (staged["root"].signed.version, staged["targets"].signed.version) != (1, 1):
            raise RepositoryError(
                f"{self.directory} is damaged: its first root and targets are not version 1",
                hint="Begin a new repository, or copy the whole of this one.",
            )
        self._anchor = root or b""
        self._take_up(staged)

    def _load_verified(self, root: bytes | None, floors: Sequence[Floor], *, restore: bool) -> None:
        get = check.reader(self.directory)
        try:
            self._anchor = root or get("1.root.json", roles.MAX_ROOT)
            if restore:
                judged = check.judge_backup(get, self._anchor)
            else:
                judged = check.judge(get, self._anchor, floors=floors)
        except RollbackError as error:
            raise RepositoryError(
                f"{self.directory} is older than what these keys have signed: {error.what}",
                hint="If it came from a backup, see `phase release restore`; else somebody has changed it.",
            ) from error
        except NotFoundError as error:
            raise RepositoryError(
                f"{error.what}: it cannot be read", hint="Publish the release again, or copy it whole."
            ) from error
        except (TrustError, ManifestError) as error:
            raise RepositoryError(
                f"{self.directory} is damaged, or was changed by somebody without the keys: {error.what}",
                hint="Nothing is signed on top of it. Put back what was published last.",
            ) from error
        self._signed, self._bytes = judged.signed, judged.files
        self._floor = judged.floor
        if restore:
            self._floor = merged([judged.floor, *floors])

    def first_root(self) -> bytes:
        """The first root, which images hold; its draft before the first publication."""
        return self._anchor or self._waiting["root"].to_bytes()

    def carried(self) -> dict[str, bytes]:
        """The published files, by name, for persons who sign the drafts that replace them."""
        if not self._signed:
            return {}
        get = check.reader(self.directory)
        names = [f"{number}.root.json" for number in range(1, self._signed["root"].version + 1)]
        found = {name: get(name, roles.MAX_ROOT) for name in names}
        return found | {
            f"{role}.json": self._bytes[role]
            for role in {"targets", *self._waiting} - {"root"}
            if role in self._bytes
        }

    @property
    def floor(self) -> Floor:
        """The floor that a machine would remember of the published roles."""
        return self._floor

    def publish(self, *, gap: bool = False) -> Published:
        """Sign every draft, a new snapshot and timestamp, and put all in place at once.

        Args:
            gap: after keys were lost or revoked, publish without the signatures of the old keys. A client
                that comes just when the root changes has to ask again.

        Raises:
            KeysError: too few keys at hand for a role that must be signed.
            RepositoryError: a machine would refuse it, or it cannot be written. Nothing has changed then.
        """
        self._stage(set(self._drafts))
        self._require(self.lacks(), gap)
        return self._put_in_place(set(self._drafts), gap)

    def settle(self, *, gap: bool = False, all_waiting: bool = False, hold: bool = False) -> Published:
        """Publish the drafts that are completely signed, and keep the others.

        Args:
            gap: as for `publish`.
            all_waiting: also sign and publish drafts that waited before. Otherwise only changes made here
                are signed, so that drafts of others are not signed by accident.
            hold: publish nothing.

        Raises:
            KeysError: a draft is ready, and the keys of snapshot and timestamp are not at hand.
            RepositoryError: as for `publish`.
        """
        own = set(self._drafts) if all_waiting else set(self._drafts) - self._inherited
        for role in sorted(self._inherited & set(self._drafts) - set(self._waiting)):
            self._notes.append(
                f"{role} waited before: `phase release sign` shows what is in it, and signs it"
            )
        own = self._stage(own, hold=hold)
        ready = set() if hold else self._ready(own, gap)
        if not ready:
            try:
                journal.carry_out(self.directory, self._staged_changes())
            except OSError as error:
                raise RepositoryError(f"{self.directory} cannot be written: {error.strerror}") from error
            return Published((), tuple(self.lacks()), tuple(self._notes))
        return self._put_in_place(ready, gap)

    def _put_in_place(self, ready: set[str], gap: bool) -> Published:
        """Sign a new snapshot and timestamp over the ready drafts, judge the result, and write it."""
        if "targets" in ready:
            for role in ready - set(TOP) - set(self._after_delegations):
                self._forget(role)  # withdrawn
            ready &= set(self._drafts)
        missing = [role for role in self._delegations if role not in self._signed]
        if missing and ready:
            raise RepositoryError(
                f"metadata of {', '.join(missing)} is not here", hint="Use the whole repository."
            )
        by = [self._drafts["root"] if "root" in ready else self._signed["root"]]
        by += [self._signed["root"]] if "root" in ready and "root" in self._signed else []
        roots = cast("list[Root]", by)
        pending = self._sign_online(ready, roots, gap)
        if "root" in ready:
            data = self._signed_well("root").to_bytes()
            version = self._drafts["root"].version
            names = {f"{version}.root.json": data, "root.json": data}
            # The first root is written first, since all else needs it. A later root is written last: old and
            # new keys have signed all the rest, so clients accept that with either root.
            pending = names | pending if version == 1 else pending | names
        expired = {role for role, signed in self._signed.items() if signed.is_expired(self._time())}
        judged = self._judge(pending, ready, expired)
        self._signed, self._bytes, self._floor = judged.signed, judged.files, judged.floor
        for role in ready:
            self._forget(role)
        if self._drafts:  # drafts that still wait may have to follow the roles just published
            self._stage(set(self._drafts) - self._inherited)
        changes = [Change(f"metadata/{name}", data) for name, data in pending.items()]
        try:
            self._link_targets(ready)
            journal.carry_out(self.directory, changes + self._staged_changes())
        except OSError as error:
            raise RepositoryError(f"{self.directory} cannot be written: {error.strerror}") from error
        return Published(tuple(sorted(ready)), tuple(self.lacks()), tuple(self._notes))

    def _sign_online(self, ready: set[str], roots: list[Root], gap: bool) -> dict[str, bytes]:
        """The files of a publication without the root, in their order."""
        pending = {}
        snapshot = cast("Snapshot", self._copy("snapshot")) if "snapshot" in self._signed else Snapshot()
        # Machines refuse a snapshot without the roles that they remember, so it names lost ones too.
        for file, version in self._floor.meta.items():
            snapshot.meta.setdefault(file, MetaFile(version))
        for role in sorted(ready - {"root", "targets"}) + ["targets"] * ("targets" in ready):
            data = self._signed_well(role).to_bytes()
            pending[f"{self._drafts[role].version}.{role}.json"] = data
            snapshot.meta[f"{role}.json"] = _pin(self._drafts[role].version, data)
        lapses = "snapshot" in self._signed and (
            self._due("snapshot")
            or "snapshot" in self._shortened
            or self._last_version("snapshot") > snapshot.version
        )
        if ready or lapses:
            data = self._sign_now("snapshot", snapshot, roots, gap)
            pending[f"{snapshot.version}.snapshot.json"] = data
            pinned = _pin(snapshot.version, data)
        else:
            pinned = self._timestamp.snapshot_meta
        timestamp = Timestamp(snapshot_meta=pinned)
        self._check_clock()
        pending["timestamp.json"] = self._sign_now("timestamp", timestamp, roots, gap)
        return pending

    def _sign_now(self, role: str, signed: Snapshot | Timestamp, roots: list[Root], gap: bool) -> bytes:
        """Sign snapshot or timestamp: without their keys nothing is published."""
        signed.version = self._next_version(role)
        signed.expires = self._until(lifetimes.days(role, None, self._expiry))
        metadata: Metadata[Any] = Metadata(signed)
        wanted = {keyid for root in roots for keyid in root.roles[role].keyids}
        self._sign(role, metadata, wanted)
        newest, *previous = roots
        demands = [roles.demand(role, newest), *(roles.demand_of_previous(role, root) for root in previous)]
        lacks = (roles.lack(role, demand, metadata) for demand in demands)
        self._require([each for each in lacks if each], gap)
        return metadata.to_bytes()

    def _check_clock(self) -> None:
        if "timestamp" not in self._signed or self.clock_was_ahead or self._shortened:
            return
        now = self._time()
        signed_at = self._timestamp.expires - timedelta(days=self._expiry.timestamp)
        if signed_at > now + _BACK:
            raise RepositoryError(
                f"this machine's clock says {now:%Y-%m-%d %H:%M}; "
                f"the published timestamp was signed at {signed_at:%Y-%m-%d %H:%M}, UTC",
                hint="Set the clock; or, if the clock that signed it was wrong, give --clock-was-ahead.",
            )

    def _judge(self, pending: Mapping[str, bytes], ready: set[str], expired: set[str]) -> check.Judged:
        """Judge the repository with these files as a machine would.

        Args:
            pending: files to be published, by name.
            ready: roles to be published.
            expired: published roles that had expired already: they may stay so.
        """
        on_disk = check.reader(self.directory)
        anchor = self._anchor or pending["1.root.json"]

        def get(name: str, limit: int) -> bytes:
            return pending[name] if name in pending else on_disk(name, limit)

        try:
            judged = check.judge(get, anchor, floors=[self._floor])
        except (TrustError, ManifestError) as error:
            raise RepositoryError(
                f"a machine would refuse what would be published: {error.what}", hint=error.hint
            ) from error
        now_expired = judged.expired(self._time())
        if refused := now_expired & ready | now_expired - expired:
            raise RepositoryError(
                f"a machine would refuse what would be published: {', '.join(sorted(refused))} has expired",
                hint="It has waited for too long: discard it, and make it again.",
            )
        self._anchor = anchor
        self._notes += [
            f"{role} expired at {judged.signed[role].expires:%Y-%m-%d %H:%M} UTC: no machine takes it"
            for role in sorted(now_expired)
        ]
        return judged

    def _require(self, lacks: list[Lack], gap: bool) -> None:
        for each in lacks:
            if gap and each.waivable:
                continue
            raise KeysError(
                f"{len(each.signed)} of the keys of {each.role} are at hand, {each.threshold} must sign",
                hint="A lost key cannot sign: see --gap."
                if each.waivable
                else "Give the directory that holds them.",
            )

    def _link_targets(self, ready: set[str]) -> None:
        """Give new artifacts the paths that other TUF clients ask for, and restore lost ones."""
        linked = set()
        for channel, arch in self.releases():
            role = role_name(channel, arch)
            if role not in self._signed:
                continue
            for artifact in self.manifest(channel, arch).artifacts.values():
                link = self.directory / "targets" / channel / arch / f"{artifact.sha256}.{artifact.name}"
                blob = self.directory / blobs.PLACE / artifact.sha256
                # A host that only renews signatures may have no artifacts.
                if link.exists() or not (role in ready or blob.exists()):
                    continue
                files.make_public(link.parent)
                blobs.place(blob, link)
                linked.add(link.parent)
        for directory in linked:
            files.sync_up(directory, self.directory)


def _pin(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": sha256(data).hexdigest()})
