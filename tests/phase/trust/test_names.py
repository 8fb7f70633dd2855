"""Every file is what its name and its delegator say it is, and an error names it."""

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
    with pytest.raises(trust.WrongTargetError, match="is delegated to nobody"):
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
