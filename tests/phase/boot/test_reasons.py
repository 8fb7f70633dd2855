"""Why no release came, in words and in order."""

import pytest

from phase.boot.reasons import MAX_KEPT, Reasons, following, told
from phase.fetch.errors import ExhaustedError, ProtocolError, ProviderFailedError, StalledError
from phase.trust import TrustError

NAMED, LIAR, PORTAL, DEAD = "http://named", "http://liar", "http://portal", "http://dead"


def exhausted(cause: ProviderFailedError) -> ExhaustedError:
    error = ExhaustedError(f"/metadata/2.root.json could not be fetched from any provider: {cause}")
    error.__cause__ = cause
    return error


def test_the_likeliest_cause_comes_first() -> None:
    reasons = Reasons([NAMED])
    reasons.note(DEAD, exhausted(ProviderFailedError(DEAD, "no connection: refused")))
    reasons.note(PORTAL, exhausted(ProtocolError(PORTAL, "it answers 302")))
    reasons.note(LIAR, TrustError("timestamp.json is signed by 0 of 1"))
    reasons.note(NAMED, exhausted(ProviderFailedError(NAMED, "no connection: refused", hint="Is it on?")))
    assert reasons.summary() == [
        "http://named: no connection: refused. Is it on?",
        "http://liar: timestamp.json is signed by 0 of 1",
        "http://portal: it answers 302",
        "http://dead: no connection: refused",
    ]


def test_the_same_reason_is_told_once_and_another_one_again() -> None:
    reasons = Reasons([])
    assert reasons.note(LIAR, TrustError("expired")) == "http://liar: expired"
    assert reasons.note(LIAR, TrustError("expired")) == ""
    assert reasons.note(LIAR, TrustError("older")) == "http://liar: older"
    assert reasons.note(DEAD, TrustError("older")) == "http://dead: older"
    assert reasons.summary() == ["http://liar: older", "http://dead: older"]


def test_a_lack_of_time_hides_no_better_reason() -> None:
    """The last attempt has a second or less to connect; what the first one found out counts."""
    reasons = Reasons([])
    late = exhausted(StalledError(DEAD, "no connection within 1 s"))
    assert reasons.note(DEAD, exhausted(ProviderFailedError(DEAD, "no connection: no route"))) != ""
    assert reasons.note(DEAD, late) == ""
    assert reasons.summary() == ["http://dead: no connection: no route"]
    assert reasons.note(LIAR, late) != ""
    assert reasons.note(LIAR, TrustError("older")) == "http://liar: older"


def test_any_number_of_providers_costs_a_bounded_screen() -> None:
    reasons = Reasons([])
    for number in range(10 * MAX_KEPT):
        reasons.note(f"http://h{number}", TrustError("no"))
    found = reasons.summary()
    assert len(found) == 6
    assert found[-1] == f"and {MAX_KEPT - 5} more providers"


def test_a_provider_is_named_once() -> None:
    assert told(DEAD, ProviderFailedError(DEAD, "it is gone")) == "http://dead: it is gone"
    assert told(DEAD, exhausted(ProviderFailedError(DEAD, "it is gone"))) == "http://dead: it is gone"


def test_a_reason_is_printable_and_takes_a_few_lines_of_a_screen() -> None:
    line = told(DEAD, TrustError("\x1b[31m" + "x" * 5000))
    assert len(line) == 240
    assert line.isprintable()


@pytest.mark.parametrize(
    ("rescue", "shell", "said"),
    [
        ("shell", True, "next: a shell on this console; `reboot -f` there tries again"),
        ("shell", False, "next: this machine restarts and tries again in 10 s (this image allows no shell)"),
        ("reboot", True, "next: this machine restarts and tries again in 10 s"),
        ("poweroff", False, "next: this machine switches itself off in 10 s"),
    ],
)
def test_what_happens_next_is_said(rescue: str, shell: bool, said: str) -> None:
    assert following(rescue, 10, shell=shell) == said
