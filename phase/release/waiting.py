"""Drafts that wait for signatures: their versions, their signatures, and which can be published alone."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from phase.errors import printable
from phase.release import roles, staging
from phase.release.draft import Draft
from phase.release.errors import RepositoryError
from phase.release.journal import Change
from phase.release.keys import ROLES, add_signature
from phase.release.roles import TOP, Lack

#: Signatures of a role that are named when they do not count.
_NAMED = 8


class Waiting(Draft):
    """A repository with drafts and their signatures; see `phase.release.repository`."""

    def _take_up(self, staged: Mapping[str, Metadata[Any]]) -> None:
        """Load drafts that wait for signatures, unless they were published meanwhile."""
        self._resumed |= set(staged)
        # The targets come first, since they delegate to the others.
        for role in sorted(staged, key=lambda role: (role not in TOP, role)):
            signed, last = staged[role].signed, self._last_version(role)
            fits = signed.version == last + 1 if role == "root" else signed.version > last
            if not fits or not (role in TOP or role in self._after_delegations):
                self._notes.append(f"the waiting draft of {role} does not fit the published roles: left out")
                continue
            self._drafts[role] = signed
            self._waiting[role] = staged[role]
            self._inherited.add(role)
        for role in self._waiting:
            self._signed_well(role)
        self._rules = roles.read_rules(self._after_root, self._after_targets)

    @property
    def staged(self) -> dict[str, Metadata[Any]]:
        """The drafts that wait for signatures, by role."""
        return dict(self._waiting)

    def waiting_blobs(self) -> set[str]:
        """SHA-256, hex, of the files that waiting releases name."""
        return {
            target.hashes.get("sha256", "")
            for signed in self._drafts.values()
            if isinstance(signed, Targets)
            for target in signed.targets.values()
        }

    def discard(self, wanted: Collection[str] | None = None) -> list[str]:
        """Give up drafts that wait for signatures; `settle` removes their files.

        Args:
            wanted: roles; all when left out. New keys and new channels are one change, given up together.

        Returns:
            The roles given up.

        Raises:
            RepositoryError: one of them does not wait.
        """
        names = set(self._waiting) if wanted is None else set(wanted)
        if absent := names - set(self._waiting):
            raise RepositoryError(
                f"{', '.join(sorted(absent))} does not wait for signatures in {self.directory}",
                hint="See `phase release status`.",
            )
        if names & (unit := self._unit()):
            names |= unit
        for role in names:
            self._forget(role)
        self._rules = roles.read_rules(self._after_root, self._after_targets) if self._signed else {}
        return sorted(names)

    def spent(self) -> dict[str, int]:
        """The highest version of each role that the keys at hand have signed, published or not."""
        at_hand = {signer.public_key.keyid for role in ROLES for signer in self._keys[role]}
        found = {
            role: metadata.signed.version
            for role, metadata in self._waiting.items()
            if at_hand & set(metadata.signatures)
        }
        return dict(self._spent) | {role: max(it, self._spent.get(role, 0)) for role, it in found.items()}

    def cover(self) -> None:
        """Also draft the roles that must be signed again with them, so that a person sees all first."""
        self._stage_unsigned(set(self._drafts))

    def collect(self, source: Path) -> list[str]:
        """Take over signatures that others have made.

        Args:
            source: a directory with `{role}.json`, written by `staging.save` and signed by others.

        Returns:
            Roles in it that no longer wait here, since its signatures were taken before.

        Raises:
            RepositoryError: a file in it is not the draft that waits here.
        """
        stale = []
        for role, metadata in staging.load(source).items():
            ours = self._waiting.get(role)
            if metadata.signed.version <= self._last_version(role):
                stale.append(role)
                continue
            if ours is None or ours.signed_bytes != metadata.signed_bytes:
                raise RepositoryError(
                    f"{source} holds another {role} than the one that waits here",
                    hint="Export again what is to be signed.",
                )
            kept = dict(ours.signatures)
            ours.signatures.update(metadata.signatures)
            ours.signatures.update(self._signed_well(role).signatures | kept)
            self._signed_well(role)
            self._notes += [
                f"{role} in {source}: the signature of key id {printable(keyid)[:64]} does not count"
                for keyid in sorted(metadata.signatures.keys() - ours.signatures.keys())[:_NAMED]
            ]
        return stale

    def lacks(self, names: Iterable[str] | None = None) -> list[Lack]:
        """The waiting drafts that too few keys have signed, with the missing keys."""
        found = []
        for role in self._waiting if names is None else names:
            metadata = self._waiting[role]
            lacks = (roles.lack(role, demand, metadata) for demand in self._demands(role))
            found += [each for each in lacks if each]
        return found

    def _unit(self) -> set[str]:
        """The drafts that count only together: the keys, and roles that other keys than before sign."""
        changed = {
            role
            for role in self._drafts
            if role not in TOP and self._after_delegations.get(role) != self._delegations.get(role)
        }
        # A root that only gets a new expiry changes no keys, so it can be published alone.
        root = self._drafts.get("root")
        kept = isinstance(root, Root) and "root" in self._signed and root.roles == self._root.roles
        return set(self._drafts) & (set(TOP) - {"root"} if kept else set(TOP)) | changed

    def _ready(self, own: set[str], gap: bool) -> set[str]:
        """The drafts that can be published: each alone, but new keys and new channels together."""

        def lacking(role: str) -> bool:
            return any(not (gap and each.waivable) for each in self.lacks([role]))

        unit = self._unit()
        ready = {role for role in own - unit if not lacking(role)}
        if unit <= own and not any(lacking(role) for role in unit):
            return ready | unit
        # While new keys wait, a release may be published with the present keys.
        published = self._signed.get("targets")
        for role in unit & own - set(TOP):
            if isinstance(published, Targets) and role in self._delegations:
                missing = roles.lack(role, roles.demand(role, published), self._waiting[role])
                ready |= set() if missing else {role}
        return ready

    def _stage(self, own: set[str], *, hold: bool = False) -> set[str]:
        """Give drafts their versions, and sign our own drafts with these keys; returns our own drafts."""
        own = self._stage_unsigned(own, hold=hold)
        for role in own & set(self._waiting):
            self._add_signatures(role, self._waiting[role])
        return own

    def _stage_unsigned(self, own: set[str], *, hold: bool = False) -> set[str]:
        own = own | self._cover(own)
        complete = not hold and all(
            self._can_sign(role, [demand.delegator for demand in self._demands(role)])
            for role in self._drafts
        )
        for role, signed in self._drafts.items():
            if role not in self._waiting:
                signed.version = self._next_version(role, room=not complete)
                self._waiting[role] = Metadata(signed)
        return own

    def _cover(self, own: set[str]) -> set[str]:
        """Draft again, as they are, the published roles that the drafted keys have not signed.

        Args:
            own: our own drafts. A role that must be signed again because of a draft of others is theirs,
                too.

        Returns:
            Those that are our own.
        """
        found: set[str] = set()
        root = self._drafts.get("root")
        kept = "targets" in self._signed and "targets" not in self._drafts
        if kept and isinstance(root, Root) and self._unsigned("targets", root):
            self._targets_draft()
            (found if "root" in own else self._inherited).add("targets")
        targets = self._drafts.get("targets")
        if not isinstance(targets, Targets):
            return found
        for role in self._after_delegations:
            if role not in self._signed or not self._unsigned(role, targets):
                continue
            if role in self._inherited and "targets" in own | found and role not in own:
                # A waiting draft must not keep a key in use that is to be replaced.
                self._notes.append(
                    f"the waiting draft of {role} is given up: other keys sign it now; make it again"
                )
                self._forget(role)
            if role not in self._drafts:
                self._draft(role, self._copy(role))
                self._unchanged.add(role)
                (found if "targets" in own | found else self._inherited).add(role)
        return found

    def _staged_changes(self) -> list[Change]:
        changes = [
            Change(f"{staging.PLACE}/{role}.json", metadata.to_bytes())
            for role, metadata in sorted(self._waiting.items())
        ]
        gone = sorted(self._resumed - set(self._waiting))
        return changes + [Change(f"{staging.PLACE}/{role}.json", None) for role in gone]

    def _add_signatures(self, role: str, metadata: Metadata[Any]) -> None:
        wanted = {
            keyid for demand in self._demands(role) for keyid in roles.rule_of(demand.delegator, role).keyids
        }
        if role in self._delegations:  # it may be published before new keys count
            wanted |= set(self._delegations[role].keyids)
        self._sign(role, metadata, wanted)

    def _sign(self, role: str, metadata: Metadata[Any], wanted: set[str]) -> None:
        for signer in self._keys[roles.kind(role)]:
            keyid = signer.public_key.keyid
            if keyid in wanted and keyid not in metadata.signatures:
                add_signature(metadata, signer)

    def _signed_well(self, role: str) -> Metadata[Any]:
        """A draft's metadata, without the signatures that do not count."""
        metadata = self._waiting[role]
        delegators = [demand.delegator for demand in self._demands(role)]
        if role in self._delegations:
            delegators.append(self._targets)
        good = set()
        for delegator in delegators:
            result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            good |= set(result.signed)
        for keyid in set(metadata.signatures) - good:
            del metadata.signatures[keyid]
        return metadata
