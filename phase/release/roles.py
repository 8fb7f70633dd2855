"""The roles of a repository: how long they hold, and the keys that must sign them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Signed, Targets

from phase.errors import printable
from phase.release import lifetimes
from phase.release.errors import KeysError, RepositoryError
from phase.release.keys import ONLINE as ONLINE
from phase.release.keys import ROLES, ReleaseKeys
from phase.release.lifetimes import Expiry
from phase.release.manifest import FIELD, split_role
from phase.trust import Policy

#: Field of the top-level targets with the keys that sign releases.
RELEASE_FIELD = "x-phase-release"
TOP = ("root", "timestamp", "snapshot", "targets")
MAX_ROOT = Policy().max_root


class Rule(NamedTuple):
    """The keys of a role.

    Attributes:
        keys: public keys, each once.
        threshold: how many of them must sign.
    """

    keys: tuple[Key, ...]
    threshold: int


class Demand(NamedTuple):
    """A delegator whose rule the signatures of a role must meet.

    Attributes:
        role: the role's name, for people; it says so if the rule of the previous root is meant.
        delegator: says whose signatures the role needs.
        waivable: `gap` may waive it. It is the rule of the previous root, and the role is not the root: a
            client that comes just when the root changes has to ask again.
    """

    role: str
    delegator: Root | Targets
    waivable: bool = False


class Lack(NamedTuple):
    """A demand that too few signatures meet.

    Attributes:
        role: as in the demand.
        signed: names of the keys that have signed.
        missing: names of the keys that have not.
        threshold: how many must sign.
        waivable: as in the demand.
    """

    role: str
    signed: tuple[str, ...]
    missing: tuple[str, ...]
    threshold: int
    waivable: bool = False


def kind(role: str) -> str:
    """The role whose keys sign a role: itself for the top four, otherwise `release`."""
    return role if role in TOP else "release"


def rules(keys: ReleaseKeys) -> dict[str, Rule]:
    """The rules by which more than half of each role's keys must sign."""
    return {
        role: Rule(tuple(signer.public_key for signer in keys[role]), keys.threshold(role)) for role in ROLES
    }


def check(found: Mapping[str, Rule]) -> None:
    """Make sure that every role can be signed.

    Raises:
        KeysError: a role has no key, or its threshold is zero or too high.
    """
    for role in ROLES:
        rule = found.get(role, Rule((), 1))
        if not rule.keys:
            raise KeysError(f"there is no key for {role}", hint="A repository needs every role's.")
        if not 1 <= rule.threshold <= len(rule.keys):
            raise KeysError(f"{rule.threshold} of {len(rule.keys)} keys of {role} cannot sign")


def root(found: Mapping[str, Rule]) -> Root:
    """A root that trusts these keys."""
    made = Root(consistent_snapshot=True)
    for role in TOP:
        for key in found[role].keys:
            made.add_key(key, role)
        made.roles[role].threshold = found[role].threshold
    return made


def release_field(rule: Rule) -> dict[str, Any]:
    """The value of `RELEASE_FIELD`, which is kept even before the first release."""
    return {"keyids": [key.keyid for key in rule.keys], "threshold": rule.threshold}


def public(key: Key) -> str:
    """A public key, 64 hex digits; for a key of another kind, printable text."""
    return printable(str(key.keyval.get("public", key.keyid))[:128])


def top_rules(root: Root) -> dict[str, Rule]:
    """The rules of the top-level roles."""
    return {role: _rule(root.roles[role], root.keys) for role in TOP}


def delegated_rules(targets: Targets) -> dict[str, Rule]:
    """The rule of each release, and the rule for `releases of new channels`."""
    delegations = targets.delegations
    if delegations is None:
        return {}
    found = {role: _rule(each, delegations.keys) for role, each in sorted((delegations.roles or {}).items())}
    if rule := release_rule(targets):
        found["releases of new channels"] = rule
    return found


def read_rules(root: Root, targets: Targets) -> dict[str, Rule]:
    """The rule of each top-level role; and as `release`, the rule for releases of new channels."""
    found = top_rules(root)
    if rule := release_rule(targets):
        found["release"] = rule
    return found


def release_rule(targets: Targets) -> Rule | None:
    """The rule for releases of new channels; None if the targets do not have one."""
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        return None
    field = targets.unrecognized_fields.get(RELEASE_FIELD)
    if not isinstance(field, dict):  # published before this field existed: use the rule of its first release
        first = next(iter(delegations.roles.values()), None)
        return _rule(first or Role([], 1), delegations.keys)
    keyids, threshold = field.get("keyids"), field.get("threshold")
    keyids = [each for each in keyids if isinstance(each, str)] if isinstance(keyids, list) else []
    return _rule(Role(keyids, threshold if type(threshold) is int else 1), delegations.keys)


def _rule(role: Role, keys: Mapping[str, Key]) -> Rule:
    return Rule(tuple(keys[keyid] for keyid in role.keyids if keyid in keys), role.threshold)


def delegation(role: str, rule: Rule) -> DelegatedRole:
    """A delegation that lets the keys of a rule sign one release only.

    Raises:
        ManifestError: it is not the role of a release.
    """
    channel, arch = split_role(role)
    keyids = [key.keyid for key in rule.keys]
    return DelegatedRole(role, keyids, rule.threshold, terminating=True, paths=[f"{channel}/{arch}/*"])


def check_delegations(targets: Targets) -> None:
    """Make sure that the top-level targets let each role sign its own release only.

    Raises:
        RepositoryError: a role may sign more; or the targets list files themselves.
        ManifestError: a role is not the role of a release.
    """
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise RepositoryError("the top-level targets do not delegate to any release")
    for role, each in delegations.roles.items():
        expected = delegation(role, Rule((), each.threshold))
        if (each.paths, each.terminating) != (expected.paths, True) or each.path_hash_prefixes:
            raise RepositoryError(f"the targets let {role} sign more than its own release")
    if targets.targets:
        raise RepositoryError("the top-level targets list files; only releases do")


def rule_of(delegator: Root | Targets, role: str) -> Role:
    """The key ids and the threshold that a delegator sets for a role."""
    if isinstance(delegator, Root):
        return delegator.roles[role]
    delegations = delegator.delegations
    return (delegations.roles or {})[role] if delegations else Role([], 1)


def delegates(delegator: Root | Targets, role: str) -> bool:
    """Whether a delegator names a role."""
    if isinstance(delegator, Root):
        return role in delegator.roles
    return delegator.delegations is not None and role in (delegator.delegations.roles or {})


def lifetime(role: str, signed: Signed, usual: Expiry) -> float:
    """For how long a new signature of a role holds, days; a release may have a time of its own."""
    facts = signed.unrecognized_fields.get(FIELD)
    return lifetimes.days(role, facts.get(lifetimes.FIELD) if isinstance(facts, dict) else None, usual)


def demand(role: str, delegator: Root | Targets) -> Demand:
    """The demand of a role's present delegator."""
    return Demand(role, delegator)


def demand_of_previous(role: str, root: Root) -> Demand:
    """The demand of the previous root, while a new one takes its place."""
    if role == "root":
        return Demand("the previous root", root)
    return Demand(f"{role} by the previous root", root, waivable=True)


def lack(role: str, demand: Demand, metadata: Metadata[Any]) -> Lack | None:
    """The lack of signatures; None if the demand is met.

    Args:
        role: the signed role.
        demand: the rule to meet.
        metadata: the role with its signatures so far.
    """
    result = demand.delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if result.verified:
        return None
    signed, missing = tuple(sorted(result.signed)), tuple(sorted(result.unsigned))
    return Lack(demand.role, signed, missing, result.threshold, demand.waivable)


def without(
    before: Mapping[str, Rule], public_key: str, new: Mapping[str, Sequence[Key]]
) -> dict[str, Rule]:
    """The rules without a key; new keys take its place where it was.

    Args:
        before: the rules of now.
        public_key: 64 hex digits, or the first of them, eight at least.
        new: keys by role; a role that gets none keeps its threshold.

    Raises:
        KeysError: not exactly one key begins so, or a new key is of a role that the old one did not sign.
    """
    every = {public(each) for rule in before.values() for each in rule.keys}
    matching = {each for each in every if len(public_key) >= 8 and each.startswith(public_key)}
    if len(matching) != 1:
        raise KeysError(
            f"{len(matching)} keys here begin with {public_key[:64]}", hint="See `phase release show`."
        )
    signs = {role for role, rule in before.items() if matching & {public(each) for each in rule.keys}}
    if unused := set(new) - signs:
        raise KeysError(
            f"the key signs {', '.join(sorted(signs))}; "
            f"a key of {', '.join(sorted(unused))} replaces nothing",
            hint="To give that role other keys, use rotate.",
        )
    found = {}
    for role, rule in before.items():
        left = [each for each in rule.keys if public(each) not in matching]
        replaced = left if len(left) == len(rule.keys) else [*left, *new.get(role, ())]
        found[role] = Rule(tuple(replaced), rule.threshold)
    return found
