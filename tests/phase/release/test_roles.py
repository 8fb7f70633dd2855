"""Who must sign what, as the root and the targets say it."""

import copy

import pytest
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

from phase.release import roles
from phase.release.errors import KeysError, ManifestError, RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from phase.release.roles import Rule


@pytest.fixture
def targets(repository: Repository) -> Targets:
    found = repository.published()["targets"]
    assert isinstance(found, Targets)
    return copy.deepcopy(found)


def delegations(targets: Targets) -> dict[str, DelegatedRole]:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    return targets.delegations.roles


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "release"])
def test_a_role_that_nobody_could_sign_is_refused(keys: ReleaseKeys, role: str) -> None:
    good = roles.rules(keys)
    roles.check(good)
    several = good[role].keys
    for threshold in (1, len(several)):
        roles.check(good | {role: Rule(several, threshold)})
    for threshold in (-1, 0, len(several) + 1):
        with pytest.raises(KeysError, match=f"keys of {role} cannot sign"):
            roles.check(good | {role: Rule(several, threshold)})
    with pytest.raises(KeysError, match=f"no key for {role}"):
        roles.check(good | {role: Rule((), 1)})
    with pytest.raises(KeysError, match=f"no key for {role}"):
        roles.check({name: rule for name, rule in good.items() if name != role})


def test_a_root_trusts_the_keys_of_each_role_and_asks_for_as_many(keys: ReleaseKeys) -> None:
    found = roles.rules(keys)
    made = roles.root(found | {"targets": Rule(found["targets"].keys, 1)})
    assert made.consistent_snapshot
    assert roles.top_rules(made) == {role: found[role] for role in roles.TOP}
    assert set(made.keys) == {key.keyid for role in roles.TOP for key in found[role].keys}


def test_targets_that_give_a_role_just_its_release_are_good(targets: Targets) -> None:
    roles.check_delegations(targets)
    delegations(targets)["stable-x86_64"].threshold = 7  # whether that can be signed is seen elsewhere
    roles.check_delegations(targets)


@pytest.mark.parametrize(
    "more",
    [
        {"paths": ["*"]},
        {"paths": ["stable/x86_64/*", "stable/arm64/*"]},
        {"paths": []},
        {"paths": None, "path_hash_prefixes": ["00"]},
        {"terminating": False},
    ],
    ids=str,
)
def test_targets_that_give_a_role_more_are_not(targets: Targets, more: dict[str, object]) -> None:
    one = delegations(targets)["stable-x86_64"]
    for name, value in more.items():
        setattr(one, name, value)
    with pytest.raises(RepositoryError, match="sign more than its own release"):
        roles.check_delegations(targets)


def test_targets_that_hold_files_or_say_nothing_are_not(repository: Repository, targets: Targets) -> None:
    release = repository.published()["stable-x86_64"]
    assert isinstance(release, Targets)
    targets.targets = release.targets
    with pytest.raises(RepositoryError, match="the top-level targets list files"):
        roles.check_delegations(targets)
    with pytest.raises(RepositoryError, match="do not delegate to any release"):
        roles.check_delegations(Targets())
    other = Targets(delegations=Delegations({}, {"other": DelegatedRole("other", [], 1, True, ["*"])}))
    with pytest.raises(ManifestError):
        roles.check_delegations(other)


def test_who_signs_new_channels_is_what_the_targets_say(targets: Targets, keys: ReleaseKeys) -> None:
    rule = roles.rules(keys)["release"]
    assert roles.release_rule(targets) == rule
    # Published before they said so: those of its first release.
    delegations(targets)["stable-x86_64"].threshold = delegations(targets)["stable-arm64"].threshold = 5
    del targets.unrecognized_fields[roles.RELEASE_FIELD]
    assert roles.release_rule(targets) == Rule(rule.keys, 5)
    assert roles.release_rule(Targets(delegations=Delegations({}, {}))) == Rule((), 1)
    assert roles.release_rule(Targets()) is None


@pytest.mark.parametrize(
    "field",
    [
        {},
        {"keyids": "x", "threshold": "x"},
        {"keyids": [1, None, "of no key"], "threshold": True},
    ],
    ids=str,
)
def test_who_signs_new_channels_is_nobody_where_the_targets_say_nonsense(
    targets: Targets, field: dict[str, object]
) -> None:
    targets.unrecognized_fields[roles.RELEASE_FIELD] = field
    assert roles.release_rule(targets) == Rule((), 1)


def test_who_signs_each_release_is_told_with_who_signs_new_ones(targets: Targets, keys: ReleaseKeys) -> None:
    rule = roles.rules(keys)["release"]
    assert roles.delegated_rules(targets) == {
        "stable-arm64": rule,
        "stable-x86_64": rule,
        "releases of new channels": rule,
    }
    assert roles.delegated_rules(Targets()) == {}


def test_a_delegator_says_of_its_own_roles_alone_who_signs_them(
    repository: Repository, targets: Targets
) -> None:
    root = repository.published()["root"]
    assert isinstance(root, Root)
    asked = ("targets", "stable-x86_64", "beta-x86_64")
    assert [roles.delegates(root, role) for role in asked] == [True, False, False]
    assert [roles.delegates(targets, role) for role in asked] == [False, True, False]
    assert not roles.delegates(Targets(), "stable-x86_64")
    assert roles.rule_of(root, "targets") == root.roles["targets"]
    assert roles.rule_of(targets, "stable-x86_64") == delegations(targets)["stable-x86_64"]


def test_who_has_signed_and_who_has_not_is_told_by_key(repository: Repository, keys: ReleaseKeys) -> None:
    root = repository.published()["root"]
    assert isinstance(root, Root)
    path = repository.directory / "metadata/1.root.json"
    metadata: Metadata[Root] = Metadata.from_bytes(path.read_bytes())
    assert roles.lack("root", roles.demand("root", root), metadata) is None
    first, *others = sorted(root.roles["root"].keyids)
    metadata.signatures = {first: metadata.signatures[first]} if first in metadata.signatures else {}
    found = roles.lack("root", roles.Demand("the previous root", root, waivable=True), metadata)
    signed = tuple(metadata.signatures)
    missing = tuple(others) if signed else (first, *others)
    assert found == roles.Lack("the previous root", signed, missing, 2, True)


def test_a_key_of_another_kind_is_shown_in_one_line(keys: ReleaseKeys) -> None:
    key = copy.copy(keys["root"][0].public_key)
    assert roles.public(key) == keys["root"][0].public_hex
    key.keyval = {"public": "a\n\x1b[31mb" + "c" * 200}
    assert "\n" not in roles.public(key)
    assert "\x1b" not in roles.public(key)
    key.keyval = {}
    assert roles.public(key) == key.keyid


def test_a_key_that_goes_is_named_by_eight_digits_at_least_and_exists(keys: ReleaseKeys) -> None:
    before = roles.rules(keys)
    public = roles.public(before["timestamp"].keys[0])
    for named in ("f" * 64 if public[0] != "f" else "0" * 64, public[:7], ""):
        with pytest.raises(KeysError, match=f"0 keys here begin with {named}"):
            roles.without(before, named, {})
