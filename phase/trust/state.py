"""The metadata trusted so far: the TUF client workflow as a state machine that does no I/O.

Source: The Update Framework specification 1.0.34, section 5 (the numbers below are its own).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    MetaFile,
    Role,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)

from phase.trust import wire
from phase.trust.errors import (
    ExpiredError,
    FormatError,
    PinError,
    RollbackError,
    SignatureError,
    SizeError,
    TrustError,
    WrongTargetError,
)
from phase.trust.floor import Floor, least_root, merged, short
from phase.trust.keys import VerifyingKey

#: Keys of a publisher that are remembered: each takes 24 bytes, and firmware has little room.
MAX_KNOWN_BY = 64


class Policy(NamedTuple):
    """Limits: bytes of each role, new roots in a row, and seconds of grace after expiry.

    Attributes:
        grace: seconds for which an expired timestamp or snapshot is still taken. They only say that nothing
            newer is published, and without contact to a publisher they cannot be renewed. Roles that are
            signed offline (root, targets, manifest) get no grace.
    """

    max_root: int = 512_000
    max_timestamp: int = 16_384
    max_snapshot: int = 2_000_000
    max_targets: int = 5_000_000
    max_rotations: int = 256
    grace: int = 0


class TrustedState:
    """Metadata verified so far; each update is checked against everything before it.

    Call in the workflow's order: `update_root` for each new root, then `update_timestamp`,
    `update_snapshot`, `update_targets`, `update_delegated`.

    Args:
        root: the trusted root's bytes, from the image.
        now: the time of the whole refresh, UTC; fixed once (5.1).
        floor: from earlier refreshes.
        policy: limits.
        others: floors that other places remember; the highest version counts.

    Raises:
        TrustError: the root itself cannot be used.
    """

    def __init__(
        self,
        root: bytes,
        *,
        now: datetime,
        floor: Floor | None = None,
        policy: Policy | None = None,
        others: Sequence[Floor] = (),
    ) -> None:
        self.now = now
        self.floor = floor or Floor()
        #: The new floor's time is not earlier. Times that other places remember do not count here.
        self._seen = self.floor.time
        self._others = tuple(others)
        self.policy = policy or Policy()
        #: Names of the files that had expired and were taken by the policy's grace.
        self.overdue: list[str] = []
        self.root, opened = wire.read(root, Root, name="trusted root", max_bytes=self.policy.max_root)
        _check_signatures(opened, self.root.roles["root"], self.root.keys, "trusted root")
        _check_root(self.root)
        #: Keys that identify this publisher, those of the first root first.
        self._known_by = dict.fromkeys(_names(self.root))
        self._timestamp: Timestamp | None = None
        self._snapshot: Snapshot | None = None
        self._targets: Targets | None = None

    def update_root(self, data: bytes) -> Root:
        """Follow the chain of roots by one (5.3.3 to 5.3.8)."""
        if self._timestamp is not None:
            raise RuntimeError("roots come before the timestamp")
        expected = self.root.version + 1
        name = f"{expected}.root.json"
        root, opened = wire.read(data, Root, name=name, max_bytes=self.policy.max_root)
        _check_signatures(opened, self.root.roles["root"], self.root.keys, f"{name} (by the previous root)")
        _check_signatures(opened, root.roles["root"], root.keys, f"{name} (by its own keys)")
        if root.version != expected:
            kind = RollbackError if root.version < expected else PinError
            raise kind(f"{name} says version {root.version}, expected {expected}")
        _check_root(root)
        # Its expiry is not checked: an old root only leads to the next one (5.3.10 checks the last).
        self.root = root
        self._known_by |= dict.fromkeys(_names(root))
        return root

    def update_timestamp(self, data: bytes) -> Timestamp:
        """Close the chain of roots, then take the timestamp (5.3.10, 5.3.11, 5.4)."""
        if self._snapshot is not None:
            raise RuntimeError("the timestamp comes before the snapshot")
        floors = (self.floor, *self._others)
        least = max(least_root(floor, self._known_by) for floor in floors)
        if self.root.version < least:
            raise RollbackError(
                f"the newest root offered is version {self.root.version}; "
                f"version {least} was trusted before",
                hint="Ask another provider.",
            )
        self._check_expiry(self.root, f"root version {self.root.version}")
        # First reduce each floor by its own keys: versions that other keys signed must not count for all.
        self.floor, self._others = merged(recovered(floor, self.root) for floor in floors), ()
        timestamp, opened = wire.read(
            data, Timestamp, name="timestamp.json", max_bytes=self.policy.max_timestamp
        )
        _check_signatures(opened, self.root.roles["timestamp"], self.root.keys, "timestamp.json")
        _check_version("timestamp.json", timestamp.version, self.floor.timestamp)
        # Also pinned by the timestamp trusted before (5.4.3.2).
        pinned = timestamp.snapshot_meta.version
        _check_version("the snapshot in timestamp.json", pinned, self.floor.snapshot)
        self._check_expiry(timestamp, "timestamp.json", grace=self.policy.grace)
        self._timestamp = timestamp
        return timestamp

    def update_snapshot(self, data: bytes) -> Snapshot:
        """Take the snapshot that the timestamp names (5.5)."""
        if self._targets is not None:
            raise RuntimeError("the snapshot comes before the targets")
        pin = self.snapshot_pin
        name = f"{pin.version}.snapshot.json"
        _check_pin(data, pin, name)
        snapshot, opened = wire.read(data, Snapshot, name=name, max_bytes=self.policy.max_snapshot)
        _check_signatures(opened, self.root.roles["snapshot"], self.root.keys, name)
        _check_pinned_version(name, snapshot.version, pin)
        for file, version in self.floor.meta.items():
            found = snapshot.meta.get(file)
            if found is None:
                raise RollbackError(f"{name} no longer names {file}, trusted before as version {version}")
            _check_version(f"{file} in {name}", found.version, version)
        self._check_expiry(snapshot, name, grace=self.policy.grace)
        self._snapshot = snapshot
        return snapshot

    def update_targets(self, data: bytes) -> Targets:
        """Take the top-level targets (5.6)."""
        pin = self.meta_pin("targets")
        name = f"{pin.version}.targets.json"
        targets = self._read_targets(data, pin, name, self.root.roles["targets"], self.root.keys)
        self._targets = targets
        return targets

    def update_delegated(self, role: str, data: bytes, *, by: Targets | None = None) -> Targets:
        """Take a role that another delegates to (5.6.7).

        Args:
            role: its name.
            data: its metadata, new or cached: both are verified against the delegator. Call again for each
                delegator that leads to the role: each must accept the metadata itself.
            by: the delegator, from an earlier update; the top-level targets when left out.
        """
        delegation = self.delegation(role, by=by)
        pin = self.meta_pin(role)
        keys = self._delegations(by).keys
        return self._read_targets(data, pin, f"{pin.version}.{role}.json", delegation, keys)

    def delegation(self, role: str, *, by: Targets | None = None) -> DelegatedRole:
        """The delegation of a role.

        Raises:
            WrongTargetError: the delegator does not name the role.
        """
        offered = self._delegations(by).roles or {}
        if role not in offered:
            others = ", ".join(sorted(offered))[:300] or "none"
            raise WrongTargetError(
                f"this repository has no release of {role}; it has {others}",
                hint="Check the channel (phase.channel=, --channel) and the architecture.",
            )
        return offered[role]

    def check_path(self, role: str, path: str) -> None:
        """Make sure that a role comes first of those that may describe a target path (5.6.7.2).

        Raises:
            WrongTargetError: another role comes first.
        """
        self.delegation(role)
        first = next((name for name, _ in self._delegations().get_roles_for_target(path)), None)
        if self._targets and path in self._targets.targets:
            first = "targets"
        if first != role:
            raise WrongTargetError(f"{path} is delegated to {(first or 'no role')[:80]}, not to {role}")

    @property
    def snapshot_pin(self) -> MetaFile:
        """Version, and perhaps length and hashes, that the timestamp gives for the snapshot."""
        if self._timestamp is None:
            raise RuntimeError("the timestamp comes before the snapshot")
        return self._timestamp.snapshot_meta

    def meta_pin(self, role: str) -> MetaFile:
        """Version, and perhaps length and hashes, that the snapshot gives for a role.

        Raises:
            FormatError: the snapshot does not name it.
        """
        if self._snapshot is None:
            raise RuntimeError("the snapshot comes before the targets")
        try:
            return self._snapshot.meta[f"{role}.json"]
        except KeyError:
            raise FormatError(f"the snapshot does not name {role}.json") from None

    def new_floor(self) -> Floor:
        """The floor to remember for the metadata trusted so far, also after a failure."""
        version = max(self.root.version, least_root(self.floor, self._known_by))
        floor = self.floor._replace(
            root=version,
            roots=dict.fromkeys(self._names_to_keep(), version),
            time=max(int(self.now.timestamp()), self._seen),
        )
        if self._timestamp is None:
            return floor
        floor = floor._replace(
            timestamp=self._timestamp.version,
            snapshot=self._timestamp.snapshot_meta.version,
            keys={name: sorted(role_keys(self.root, name)) for name in ("timestamp", "snapshot")},
        )
        if self._snapshot is None:
            return floor
        return floor._replace(meta={file: found.version for file, found in self._snapshot.meta.items()})

    def _names_to_keep(self) -> list[str]:
        """Keys that identify this publisher: of the first root, the newest, and those before it."""
        first = [*self._known_by][: MAX_KNOWN_BY // 2]
        rest = [*_names(self.root), *reversed(self._known_by)]
        return sorted([*dict.fromkeys([*first, *rest])][:MAX_KNOWN_BY])

    def _read_targets(
        self, data: bytes, pin: MetaFile, name: str, role: Role, keys: Mapping[str, Key]
    ) -> Targets:
        _check_pin(data, pin, name)
        targets, opened = wire.read(data, Targets, name=name, max_bytes=self.policy.max_targets)
        _check_signatures(opened, role, keys, name)
        _check_pinned_version(name, targets.version, pin)
        self._check_expiry(targets, name)
        return targets

    def _delegations(self, by: Targets | None = None) -> Delegations:
        delegator = by or self._targets
        if delegator is None:
            raise RuntimeError("the targets come before what they delegate to")
        return delegator.delegations or Delegations({}, {})

    def _check_expiry(self, signed: Signed, name: str, *, grace: int = 0) -> None:
        if not signed.is_expired(self.now):
            return
        if signed.is_expired(self.now - timedelta(seconds=grace)):
            raise ExpiredError(
                f"{name} expired at {signed.expires:%Y-%m-%d %H:%M:%S}; now is {self.now:%Y-%m-%d %H:%M:%S}",
                hint="The publisher must sign anew; or check this machine's clock.",
            )
        self.overdue.append(name)


def recovered(floor: Floor, root: Root) -> Floor:
    """The floor, without versions that were signed by keys that the role has no longer (5.3.11)."""
    if not floor.keys:
        return floor
    for name in ("timestamp", "snapshot"):
        if set(floor.keys.get(name, ())) != role_keys(root, name):
            return Floor(root=floor.root, roots=floor.roots, time=floor.time)
    return floor


def role_keys(root: Root, name: str) -> set[str]:
    """The public keys of a top-level role, hex; each once, also if it has several ids."""
    keys = (root.keys.get(keyid) for keyid in root.roles[name].keyids)
    return {key.raw.hex() for key in keys if isinstance(key, VerifyingKey)}


def _names(root: Root) -> list[str]:
    return sorted({short(key) for role in root.roles for key in role_keys(root, role)})


def _check_root(root: Root) -> None:
    if not root.consistent_snapshot:
        raise FormatError(
            f"root version {root.version} has no consistent snapshots", hint="Publish with them."
        )


def _check_signatures(opened: wire.Opened, role: Role, keys: Mapping[str, Key], name: str) -> None:
    signed: set[bytes] = set()
    known: set[bytes] = set()
    for keyid in role.keyids:
        key = keys.get(keyid)
        if not isinstance(key, VerifyingKey):
            continue
        # Compare the key itself: one key under two ids must not count twice.
        known.add(key.raw)
        if key.raw in signed or keyid not in opened.signatures:
            continue
        if key.has_signed(opened.signatures[keyid], opened.payload):
            signed.add(key.raw)
    if len(signed) < role.threshold:
        raise SignatureError(
            f"{name} is signed by {len(signed)} of the role's {len(known)} keys, {role.threshold} must sign",
            hint="It comes from another publisher, or was changed on its way.",
        )


def _check_version(name: str, found: int, floor: int) -> None:
    if found < floor:
        raise RollbackError(
            f"{name} has version {found}; version {floor} was trusted before",
            hint="The provider offers an old release: ask another.",
        )


def _check_pinned_version(name: str, found: int, pin: MetaFile) -> None:
    if found != pin.version:
        raise PinError(f"{name} says version {found}, expected {pin.version}")


def _check_pin(data: bytes, pin: MetaFile, name: str) -> None:
    if pin.length is not None and len(data) != pin.length:
        raise SizeError(f"{name} has {len(data)} bytes, signed for {pin.length}")
    if not pin.hashes:
        return
    expected = pin.hashes.get("sha256")
    if expected is None:
        # A hash of another kind cannot be checked here, so it proves nothing.
        raise TrustError(f"{name} is pinned by {', '.join(pin.hashes)[:100]}, and not by sha256")
    found = sha256(data).hexdigest()
    if found != expected:
        raise PinError(f"{name} has SHA-256 {found}, expected {expected[:64]}")
