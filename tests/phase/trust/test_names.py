"""Every file is what its name and its delegator say it is, and an error names it."""

import json
from typing import Any

import pytest

from phase import trust
from phase.trust.state import TrustedState

Publisher = Any  # the class is the fixtures' own


def _state(publisher: Publisher, now: Any) -> TrustedState:
    state = TrustedState(publisher.root, now=now)
    state.update_timestamp(publisher.files[publisher.current("timestamp")])
    state.update_snapshot(publisher.files[publisher.current("snapshot")])
    state.update_targets(publisher.files[publisher.current("targets")])
    return state


@pytest.mark.parametrize("role", ["snapshot", "targets", "stable-x86_64"])
def test_a_version_other_than_the_pinned_one_is_refused(publisher: Publisher, role: str) -> None:
    name = publisher.current(role)
    publisher.forge(role, lambda signed: signed.update(version=7))
    expected = name.partition(".")[0]
    with pytest.raises(trust.PinError, match=f"^{name} says version 7, expected {expected}"):
        publisher.refresh()


@pytest.mark.parametrize("role", ["snapshot", "targets", "stable-x86_64"])
def test_bytes_other_than_the_pinned_ones_are_refused_by_name(publisher: Publisher, role: str) -> None:
    name = publisher.current(role)
    publisher.files[name] = publisher.files[name].replace(b'"expires"', b'"expired"')
    with pytest.raises(trust.PinError, match=f"^{name} has SHA-256"):
        publisher.refresh()


@pytest.mark.parametrize("role", ["snapshot", "targets", "stable-x86_64"])
def test_a_file_that_others_signed_is_refused_by_name(publisher: Publisher, role: str) -> None:
    name = publisher.current(role)
    publisher.forge(role, lambda signed: None, signers=[])
    with pytest.raises(trust.SignatureError, match=f"^{name} is signed by 0 of"):
        publisher.refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "stable-x86_64"])
def test_a_file_of_another_form_is_refused_by_name(publisher: Publisher, role: str) -> None:
    name = publisher.current(role)
    publisher.forge(role, lambda signed: signed.pop("expires"))
    with pytest.raises(trust.FormatError, match=name):
        publisher.refresh()


def test_a_new_root_of_another_form_is_refused_by_name(publisher: Publisher) -> None:
    publisher.forge("root", lambda signed: signed.pop("expires"), name="2.root.json")
    with pytest.raises(trust.FormatError, match=r"2\.root\.json"):
        publisher.refresh()


def test_a_role_that_nothing_delegates_to_describes_nothing(publisher: Publisher, now: Any) -> None:
    state = _state(publisher, now)
    with pytest.raises(
        trust.WrongTargetError, match="no release of beta-x86_64; it has stable-arm64, stable-x86_64"
    ):
        state.check_path("beta-x86_64", "beta/x86_64/kernel")


def test_a_path_is_the_first_role_s_that_may_describe_it(publisher: Publisher, now: Any) -> None:
    state = _state(publisher, now)
    state.check_path("stable-x86_64", "stable/x86_64/kernel")
    with pytest.raises(trust.WrongTargetError, match="is delegated to stable-x86_64, not to stable-arm64"):
        state.check_path("stable-arm64", "stable/x86_64/kernel")
    with pytest.raises(trust.WrongTargetError, match="is delegated to no role"):
        state.check_path("stable-arm64", "other/kernel")


def test_what_the_targets_describe_themselves_is_no_delegate_s(publisher: Publisher, now: Any) -> None:
    path = "stable/x86_64/kernel"
    entry = {"length": 1, "hashes": {"sha256": "00" * 32}}
    publisher.forge("targets", lambda signed: signed["targets"].update({path: entry}))
    with pytest.raises(trust.WrongTargetError, match="is delegated to targets, not to stable-x86_64"):
        _state(publisher, now).check_path("stable-x86_64", path)


def test_targets_without_any_delegation_have_no_release(publisher: Publisher, now: Any) -> None:
    publisher.forge("targets", lambda signed: signed.pop("delegations"))
    state = _state(publisher, now)
    with pytest.raises(trust.WrongTargetError, match="no release of stable-x86_64; it has none"):
        state.delegation("stable-x86_64")


def test_a_delegation_is_not_asked_for_before_the_targets_are_there(publisher: Publisher, now: Any) -> None:
    with pytest.raises(RuntimeError, match="the targets come before"):
        TrustedState(publisher.root, now=now).delegation("stable-x86_64")


def test_the_image_s_own_root_is_checked_too(publisher: Publisher, now: Any) -> None:
    publisher.forge("root", lambda signed: signed.update(consistent_snapshot=False), name="9.root.json")
    with pytest.raises(trust.FormatError, match="root version 1 has no consistent snapshots"):
        TrustedState(publisher.files["9.root.json"], now=now)
    publisher.forge("root", lambda signed: None, signers=[], name="9.root.json")
    with pytest.raises(trust.SignatureError, match=r"^trusted root is signed by 0 of"):
        TrustedState(publisher.files["9.root.json"], now=now)
    with pytest.raises(trust.FormatError, match=r"^trusted root is not usable JSON"):
        TrustedState(b"{", now=now)


@pytest.mark.parametrize("role", ["targets", "stable-x86_64"])
def test_what_a_provider_sent_wrong_is_not_asked_for_twice(publisher: Publisher, role: str) -> None:
    name = publisher.current(role)
    publisher.files[name] += b" "
    with pytest.raises(trust.TrustError):
        publisher.refresh()
    assert [asked for asked, _ in publisher.asked].count(name) == 1


def test_more_than_was_asked_for_is_refused_by_name(publisher: Publisher) -> None:
    publisher.files["2.root.json"] = b" " * 600_000
    with pytest.raises(trust.SizeError, match=r"2\.root\.json has 600000 bytes; the limit is 512000"):
        publisher.refresh()


def test_the_newest_root_is_kept_under_the_plain_name_too(publisher: Publisher) -> None:
    publisher.repository.rotate(publisher.keys)
    publisher.publish()
    found = publisher.refresh()
    assert found.metadata["root.json"] == found.metadata["2.root.json"] != found.metadata["1.root.json"]


def test_a_signature_that_is_missing_does_not_hide_the_next(publisher: Publisher, now: Any) -> None:
    """The role names three keys, and the first has not signed."""
    document = json.loads(publisher.root)
    first, *others = document["signed"]["roles"]["root"]["keyids"]
    threshold = document["signed"]["roles"]["root"]["threshold"]
    assert len(others) >= threshold
    document["signatures"] = [each for each in document["signatures"] if each["keyid"] != first]
    assert TrustedState(json.dumps(document).encode(), now=now).root.version == 1
