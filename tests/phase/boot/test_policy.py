"""What follows a failed attempt."""

from typing import Any

import pytest

from phase.boot.policy import GATHER, MAX_PAUSE, Decision, Standing, decide

FIRST = Standing(attempts=1, left=300.0, connected=True, searches=1, kept=False)


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [(1, 2.0), (2, 4.0), (4, 16.0), (5, MAX_PAUSE), (6, MAX_PAUSE), (10**6, MAX_PAUSE)],
)
def test_pauses_grow_to_a_limit(attempts: int, pause: float) -> None:
    assert decide(FIRST._replace(attempts=attempts)) == Decision(False, pause)


@pytest.mark.parametrize(("left", "pause"), [(2.01, 2.0), (2.0, None), (1.0, None), (-5.0, None)])
def test_it_ends_when_no_time_is_left_for_another_attempt(left: float, pause: float | None) -> None:
    assert decide(FIRST._replace(left=left)).pause == pause


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"searches": 1}, False),
        ({"searches": len(GATHER) - 1}, False),
        ({"searches": len(GATHER)}, True),
        ({"connected": False}, True),
        ({"left": 1.0}, True),
        ({"lasting": True}, True),
    ],
)
def test_what_is_kept_boots_when_providers_cannot_help(change: dict[str, Any], kept: bool) -> None:
    standing = FIRST._replace(**change)
    assert decide(standing._replace(kept=True)).boot_kept is kept
    assert decide(standing).boot_kept is False


def test_a_lasting_reason_is_not_tried_again() -> None:
    assert decide(FIRST._replace(lasting=True)) == Decision(False, None)
