"""What must be signed, by whom, until when: at every quarter of a signature's time."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from phase.release import lifetimes, status
from phase.release.keys import ReleaseKeys
from phase.release.lifetimes import Expiry
from phase.release.repository import Repository
from phase.release.status import State


@pytest.mark.parametrize(
    ("days", "state"),
    [
        (0, State.HOLDS),
        (90, State.HOLDS),
        (90.01, State.DUE),
        (135, State.DUE),
        (135.01, State.ENDS),
        (179.99, State.ENDS),
        (180, State.EXPIRED),
        (500, State.EXPIRED),
    ],
)
def test_a_signature_goes_through_its_states(
    repository: Repository, now: datetime, days: float, state: State
) -> None:
    found = {each.role: each for each in status.published(repository, now + timedelta(days=days))}
    assert found["stable-x86_64"].state == state
    assert (state in status.URGENT) == (state in (State.ENDS, State.EXPIRED))


def test_each_published_role_is_told_with_who_signs_it(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    found = status.published(repository, now)
    assert [each.role for each in found] == [
        *("root", "timestamp", "snapshot", "targets"),
        *("stable-arm64", "stable-x86_64"),
    ]
    for each in found:
        usual = getattr(Expiry(), each.role.partition("-")[0], 180)
        assert each.expires == now + timedelta(days=usual)
        assert each.renew_by == now + timedelta(days=usual * 3 / 4)
        kind = each.role if "-" not in each.role else "release"
        assert each.keys == tuple(signer.public_hex for signer in keys[kind])
        assert (each.version, each.threshold) == (1, keys.threshold(kind))
        assert each.release == ("1.0.0" if kind == "release" else "")


def test_a_release_with_a_time_of_its_own_is_judged_by_that(
    repository: Repository, artifacts: dict[str, Path], now: datetime
) -> None:
    repository.add("stable", "x86_64", artifacts, release="2", expires=now + timedelta(days=4))
    repository.publish()
    states = {
        days: {each.role: each.state for each in status.published(repository, now + timedelta(days=days))}
        for days in (1, 2.5, 3.5, 4)
    }
    assert [found["stable-x86_64"] for found in states.values()] == list(State)
    assert {found["stable-arm64"] for found in states.values()} == {State.HOLDS}


@pytest.mark.parametrize(
    ("own", "days"),
    [
        (None, 180),
        (0, 180),
        (-1, 180),
        (True, 180),
        (1.5, 180),
        ("5", 180),
        ([], 180),
        (3650 * 86_400 + 1, 180),
        (1, 1 / 86_400),
        (86_400, 1),
        (3650 * 86_400, 3650),
    ],
)
def test_only_seconds_that_make_sense_are_a_time_of_its_own(own: object, days: float) -> None:
    assert lifetimes.days("stable-x86_64", own) == days
    assert lifetimes.renew_by(1_000_000.0, "stable-x86_64", own) == 1_000_000 - days * 86_400 / 4


def test_other_usual_times_are_asked_for_by_the_role() -> None:
    usual = Expiry(root=1, targets=2, release=3, snapshot=4, timestamp=5)
    roles = ("root", "targets", "stable-x86_64", "snapshot", "timestamp")
    assert [lifetimes.days(role, None, usual) for role in roles] == [1, 2, 3, 4, 5]
